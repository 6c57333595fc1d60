"""benign_light.py: honest changes of light and sharpness: what cameras and photo editors offer."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from forgemap.synth.benign_parts import Mask, Pixels, Processed, Rng, soft_field, to_uint8


def sharpen(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Unsharp masking: sigma 0.5-2.5 pixels, amount 0.3-2."""
    sigma, amount = float(rng.uniform(0.5, 2.5)), float(rng.uniform(0.3, 2.0))
    soft = cv2.GaussianBlur(pixels, (0, 0), sigma)
    done = cv2.addWeighted(pixels, 1 + amount, soft, -amount, 0)
    return Processed(done, mask, {"sigma": round(sigma, 3), "amount": round(amount, 3)})


def denoise(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """A median, a bilateral filter, or non-local means (Buades et al., CVPR 2005)."""
    way, strength = int(rng.integers(3)), float(rng.random())
    if way == 0:
        side = 3 if strength < 0.7 else 5
        return Processed(cv2.medianBlur(pixels, side), mask, {"way": "median", "side": side})
    if way == 1:
        spread = 8 + 32 * strength
        done = cv2.bilateralFilter(pixels, 7, spread, 3)
        return Processed(done, mask, {"way": "bilateral", "spread": round(spread, 2)})
    level = 2 + 5 * strength
    done = cv2.fastNlMeansDenoisingColored(pixels, None, level, level, 5, 15)
    return Processed(done, mask, {"way": "non-local means", "level": round(level, 2)})


def grain(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Film grain: grey noise of 2-10 levels, softened to 0.4-1 pixels, strongest in the middle."""
    level, softness = float(rng.uniform(2, 10)), float(rng.uniform(0.4, 1.0))
    white = rng.standard_normal(mask.shape, np.float32)
    noise = np.asarray(cv2.GaussianBlur(white, (0, 0), softness), np.float32)
    noise *= level / max(1e-6, float(noise.std()))
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    noise *= 0.4 + 2.4 * grey * (1 - grey)
    done = to_uint8(pixels + noise[..., None])
    return Processed(done, mask, {"level": round(level, 2), "softness": round(softness, 2)})


def tone(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """A tone curve: gamma 0.6-1.6, contrast as an S-curve, black and white points."""
    gamma, bend = float(rng.uniform(0.6, 1.6)), float(rng.uniform(-0.25, 0.5))
    black, white = float(rng.uniform(0, 0.06)), float(rng.uniform(0.9, 1.0))
    x = np.clip((np.linspace(0, 1, 256) - black) / (white - black), 0, 1) ** gamma
    curve = x + bend * (x * x * (3 - 2 * x) - x)
    drawn = {"gamma": round(gamma, 3), "bend": round(bend, 3)}
    return Processed(cv2.LUT(pixels, to_uint8(255 * curve)), mask, drawn)


def colour_filter(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """A filter of photo apps: grey, sepia, warm or cool, faded, vivid; sometimes a vignette."""
    way = ("grey", "sepia", "warmth", "faded", "vivid")[int(rng.integers(5))]
    strength, shade = float(rng.uniform(0.3, 1.0)), float(rng.uniform(-0.5, 0.6))
    mix, shift = _look(way, strength)
    done = np.asarray(cv2.transform(pixels.astype(np.float32), mix) + np.float32(shift))
    if shade > 0:
        height, width = mask.shape
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, width, dtype=np.float32)[None]
        done *= (1 - shade * np.minimum((x * x + y * y) / 2, 1))[..., None]
    drawn = {"way": way, "strength": round(strength, 3), "vignette": round(max(0.0, shade), 3)}
    return Processed(to_uint8(done), mask, drawn)


def _look(way: str, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """The colour matrix (3, 3) and offset (3,) of a filter, mixed with the picture as it is."""
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    looks = {
        "grey": (grey, 0),
        "sepia": ([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], 0),
        "warmth": (np.diag([1.18, 1.0, 0.82]), 0),
        "faded": (0.75 * (0.7 * np.eye(3) + 0.3 * grey), [38, 34, 42]),
        "vivid": (1.6 * np.eye(3) - 0.6 * grey, 0),
    }
    mix, shift = looks[way]
    mixed = strength * np.asarray(mix) + (1 - strength) * np.eye(3)
    return mixed.astype(np.float32), np.broadcast_to(strength * np.asarray(shift, float), 3)


def dodge(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Dodging and burning: exposure changed by up to 0.8 stops, smoothly over the picture."""
    cells, stops = int(rng.integers(2, 6)), float(rng.uniform(0.3, 0.8))
    field = 2 * soft_field(mask.shape, rng, cells) - 1
    done = to_uint8(pixels * np.exp2(stops * field / 2.2)[..., None])
    return Processed(done, mask, {"stops": round(stops, 3), "cells": cells})


def hdr(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Local tone mapping, in one of three ways.

    Exposure fusion of three exposures made from the picture (Mertens et al., 2007), local
    histogram equalisation of the lightness (CLAHE), or more contrast of large details with the
    guided filter (He et al., 2010).
    """
    way, strength = int(rng.integers(3)), float(rng.uniform(0.4, 1.0))
    drawn: dict[str, Any] = {"strength": round(strength, 3)}
    if way == 0:
        levels = np.arange(256) / 255
        stops = [-1.5 * strength, 0, 1.5 * strength]
        shots = [cv2.LUT(pixels, to_uint8(255 * levels * 2 ** (s / 2.2))) for s in stops]
        fused = np.asarray(cv2.createMergeMertens().process(shots))
        return Processed(to_uint8(255 * fused), mask, {"way": "fusion", **drawn})
    if way == 1:
        lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
        equal = cv2.createCLAHE(1 + 2 * strength, (8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
        lab[..., 0] = equal
        return Processed(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), mask, {"way": "clahe", **drawn})
    levels = pixels.astype(np.float32) / 255
    grey = cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY)
    base = cv2.ximgproc.guidedFilter(grey, grey, max(4, min(mask.shape) // 40), 0.02)
    boosted = np.clip(0.5 + (base - 0.5) * (1 - 0.4 * strength), 0, 1)
    boosted += (grey - base) * (1 + 1.2 * strength)
    gain = (boosted + 0.01) / (grey + 0.01)
    done = to_uint8(255 * levels * gain[..., None])
    return Processed(done, mask, {"way": "guided", **drawn})


def portrait(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """A phone's portrait mode: a subject stays sharp, the rest blurs as behind a wide lens.

    The subject is a head and shoulders: an ellipse on a wider one that reaches the lower border.
    The blur is a disc of 0.6-2 % of the longer side, its strength grows with the distance from the
    subject over a soft border of a few pixels.
    """
    height, width = mask.shape
    centre, top = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.25, 0.5))
    head, radius = float(rng.uniform(0.1, 0.2)), float(rng.uniform(0.006, 0.02))
    side = min(height, width)
    subject = np.zeros(mask.shape, np.uint8)
    x, y, r = round(centre * width), round(top * height), round(head * side)
    cv2.ellipse(subject, (x, y), (r, round(1.3 * r)), 0, 0, 360, 1, -1)
    shoulders = (round(2.4 * r), max(r, round(height - y - 1.2 * r)))
    cv2.ellipse(subject, (x, height), shoulders, 0, 0, 360, 1, -1)
    pixels_out = max(2, round(radius * max(height, width)))
    away = cv2.distanceTransform(1 - subject, cv2.DIST_L2, 3)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels_out + 1,) * 2)
    kernel = disc.astype(np.float32) / disc.sum()
    # Light adds up before the camera's gamma, so bright spots become discs.
    linear = (pixels.astype(np.float32) / 255) ** 2.2
    blurred = 255 * cv2.filter2D(linear, -1, kernel).clip(0, 1) ** (1 / 2.2)
    weight = np.clip(away / (3 * pixels_out), 0, 1)[..., None]
    done = to_uint8(pixels * (1 - weight) + blurred * weight)
    return Processed(done, mask, {"radius": pixels_out, "head": round(head, 3)})
