"""Regions that occur twice in a picture (copy-move), found by what they show and not by traces."""

from .finder import Copies as Copies
from .finder import find_copies as find_copies
from .telling import Copy as Copy
from .telling import sentence as sentence
from .telling import tell as tell
