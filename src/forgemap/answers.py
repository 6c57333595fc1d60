"""answers.py: both answers, edited and generated, in one sentence, and do they agree?"""

from __future__ import annotations

MOST = 0.7
"""Share of a picture from which on marked regions are no part of it, but nearly the whole."""


def together(edited: str, area: float, generated: str) -> tuple[str, bool]:
    """The two answers in one sentence, and whether they contradict each other.

    They answer two questions: a photograph with a pasted object is edited and not generated, and a
    generated picture that nobody touched is the reverse. They contradict each other where both
    claim the same pixels for different stories.

    Args:
        edited: the localizer's verdict, one of `report.VERDICTS`.
        area: share of the picture that it marks, in [0, 1].
        generated: the other verdict, one of `VERDICTS`.
    """
    made, unsure = generated == "generated", "inconclusive"
    if edited == "manipulated" and made:
        return (
            "The two answers disagree on the extent: the whole picture looks generated, and yet "
            f"{area:.0%} of it is set apart as edited. It may be a generated picture that was "
            "edited, or one of the two is wrong.",
            True,
        )
    if edited == "manipulated" and area > MOST and generated != unsure:
        return (
            f"The two answers disagree: {area:.0%} of the picture is marked as edited, but as a "
            "whole it shows no sign of generation. Heavy processing of all of it can look so.",
            True,
        )
    if edited == "manipulated" and generated == unsure:
        return "Edited in places; whether the whole was generated stays open.", False
    if edited == "manipulated":
        return "Edited in places, on a picture that does not look generated as a whole.", False
    if made:
        rest = "; whether it was edited too stays open." if edited == unsure else "."
        return f"It looks generated as a whole{rest}", False
    if unsure in (edited, generated):
        return "No clear sign of editing or of generation, and not cleared of both.", False
    return "No sign of editing, nor of generation as a whole; that proves no authenticity.", False
