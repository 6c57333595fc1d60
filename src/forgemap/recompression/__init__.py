"""Parts of a JPEG that came after its first compression: histograms tell them, not a network."""

from .later import Later as Later
from .later import find_later as find_later
