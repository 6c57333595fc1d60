"""devices.py: the device that a model is put on, if there is one of that name here."""

from __future__ import annotations

import torch

from ..errors import ModelError


def usable(name: str | torch.device) -> torch.device:
    """The device of that name; a ModelError if this machine lacks it."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"Device {str(name)!r} cannot be used here ({reason}); try cpu."
        ) from error
    return device
