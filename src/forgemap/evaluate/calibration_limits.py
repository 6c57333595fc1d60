"""calibration_limits.py: how often untouched pictures may be accused, marked and doubted."""

from __future__ import annotations

from dataclasses import dataclass

from .conformal import Levels


@dataclass(frozen=True)
class Limits:
    """How often an untouched picture may be accused, at most, in any group of pictures."""

    #: Chance that an untouched picture is judged manipulated.
    alarms: float = 0.02
    #: Mean share of the area of an untouched picture that is marked, one marked as a whole counting
    #: as none.
    flagged: float = 0.005
    #: Chance that an untouched picture is not cleared (manipulated or inconclusive), of each plain
    #: kind and of all kinds together.
    doubts: float = 0.1
    #: As `alarms`, for each single kind of honest processing.
    processed: float = 0.05
    #: Marked share of a picture from which on it is never judged manipulated.
    whole: float = 0.75
    #: Fewer different colours than that are a palette's, of which nothing can be said.
    colours: int = 257
    #: As `flagged`, of honestly processed pictures, where that is more.
    flagged_processed: float = 0.01
    #: Score from which on a picture is not cleared, even where `doubts` would allow it: what is
    #: likelier edited, or generated, than not.
    clear_below: float = 0.5
    #: Score below which a picture is not accused, even where `alarms` would allow it.
    manipulated_at: float = 0.0

    @property
    def levels(self) -> Levels:
        """The chances of a false alarm, for kinds of pictures and for those of processing."""
        return Levels(self.alarms, max(self.alarms, self.processed))


USUAL = Limits()
"""What `calibrate` promises unless told otherwise."""
