"""synth: real photos -> edited photos with exact masks and a manifest."""

from forgemap.synth.compose import synthesize
from forgemap.synth.methods import METHODS

__all__ = ["METHODS", "synthesize"]
