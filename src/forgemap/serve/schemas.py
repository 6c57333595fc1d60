"""schemas.py: what is asked of a picture and what is said of it; OpenAPI is made of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

OUTPUTS = ("heatmap", "mask", "overlay", "confidence_map", "picture")
_OUTPUT = f"({'|'.join(OUTPUTS)})"
ID = "^[0-9a-f]{32}$"

Id = Annotated[str, StringConstraints(pattern=ID)]


class Options(BaseModel):
    """How pictures are judged. Query parameters, or fields of the form beside `file`."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None,
        max_length=200,
        description="Name of a model that this server runs (see `GET /v1/models`); "
        "default: the first of them.",
    )
    threshold: float | None = Field(
        None,
        ge=0.01,
        le=0.99,
        description="Probability from which a pixel belongs to the mask and its regions; default: "
        "the model's own. The verdict rests on the model's own thresholds.",
    )
    outputs: str = Field(
        "heatmap,mask,overlay",
        pattern=f"^(none|{_OUTPUT}(,{_OUTPUT}){{0,4}})$",
        description="Which PNGs to make, separated by commas, or `none`. `heatmap`: grey, "
        "round(255 p); `mask`: 255 from the threshold on, else 0; `overlay`: the picture in grey "
        "under the heat map with numbered regions; `confidence_map`: grey, "
        "round(255 c), how sure the mask is of each pixel (of models that were calibrated for it); "
        "`picture`: as it was decoded, upright and in sRGB, for what a browser cannot show itself "
        "(HEIC, TIFF).",
        examples=["mask,overlay"],
    )

    @property
    def wanted(self) -> tuple[str, ...]:
        """The outputs by name, each once, in their fixed order."""
        return tuple(name for name in OUTPUTS if name in self.outputs.split(","))


class AnalyzeOptions(Options):
    """Options of one picture that is answered at once."""

    delivery: Literal["link", "inline"] = Field(
        "link",
        description="`link`: the outputs stay in this server's memory for a short time, for you to "
        "fetch or to put into a report; `inline`: they are data URIs in the answer and nothing is "
        "kept.",
    )


class Region(BaseModel):
    """A connected part of the picture at or above the threshold."""

    box: tuple[int, int, int, int] = Field(
        description="x0, y0, x1, y1 in pixels of the displayed picture; x1 and y1 lie just outside."
    )
    polygon: list[tuple[int, int]] = Field(
        description="Its outer border, simplified: x, y of at least three points."
    )
    score: float = Field(ge=0, le=1, description="Mean probability inside.")
    area: float = Field(ge=0, le=1, description="Share of the picture.")
    confidence: float | None = Field(
        description="0.5 to 1: how sure the mask is inside; null if the model does not say."
    )


class Decision(BaseModel):
    """What turns a score into a verdict, and what that rests on."""

    manipulated_at: float = Field(description="Scores from here on are judged manipulated.")
    clear_below: float = Field(
        description="Scores below are judged to show no sign of editing; between the two is "
        "inconclusive."
    )
    mask_threshold: float = Field(
        description="The model's own probability from which a pixel belongs to the mask."
    )
    min_side: int = Field(
        description="Pictures whose shorter side has fewer pixels are inconclusive."
    )
    min_jpeg_quality: int = Field(
        description="JPEGs below this estimated quality in which nothing is found are inconclusive."
    )
    doubt_area: float = Field(
        description="Pictures of which a larger share is marked are never cleared."
    )
    whole_area: float = Field(
        description="Pictures of which a larger share is marked are never judged manipulated: they "
        "look processed or made as a whole."
    )
    min_colours: int = Field(
        description="Colour pictures with fewer different colours are inconclusive: a palette, as "
        "GIF files have, leaves no traces."
    )
    prevalence: float = Field(
        description="Share of edited pictures for which the score is a probability; 0: it only "
        "ranks pictures."
    )
    bounds: list[str] = Field(
        description="What is promised for each kind of untouched picture, in words."
    )
    calibrated_on: str = Field(
        description="The pictures that the thresholds were chosen on; empty: not calibrated."
    )
    untouched: list[float] = Field(
        description="Scores that 0, 1, ... 100 % of the untouched pictures of the calibration stay "
        "below; empty: not known."
    )
    meaning: str = Field(description="What a score of this model means, in words.")


class Thumbnail(BaseModel):
    """The small copy that a camera puts into EXIF, and that many editors forget to renew."""

    width: int = Field(description="In pixels.")
    height: int = Field(description="In pixels.")
    difference: float = Field(
        ge=0, le=1, description="Largest difference from the picture anywhere, after blurring."
    )
    differs: bool = Field(description="Is that more than compression explains?")


class Metadata(BaseModel):
    """What a file says of itself; easily changed or removed, and no part of the verdict."""

    camera: str | None = Field(description="Maker and model.")
    lens: str | None = Field(description="As the camera names it.")
    software: str | None = Field(description="What wrote the file last, as it says.")
    taken: str | None = Field(description="When it was taken, by the camera's clock.")
    modified: str | None = Field(description="When it was changed, by the editor's clock.")
    gps: bool = Field(description="Does it hold GPS co-ordinates? They are not repeated.")
    source_type: str | None = Field(description="IPTC's digital source type, in words.")
    c2pa: str | None = Field(
        description="Content credentials: who signed, with what, and whether it fits the file; who "
        "the signer is is not checked."
    )
    thumbnail: Thumbnail | None = Field(description="The copy inside EXIF.")
    findings: list[str] = Field(description="What an analyst should look at, a sentence each.")


class Generated(BaseModel):
    """The second answer: was the whole picture generated?"""

    verdict: Literal["no sign of generation", "inconclusive", "generated"] = Field(
        description="From the score and the embedder's own thresholds."
    )
    score: float = Field(ge=0, le=1, description="The higher, the likelier generated.")
    reason: str = Field(description="What the verdict rests on, in one sentence.")
    model: str = Field(
        description="Embedder, a part of its weights' SHA-256, and the kind of classifier."
    )
    crops: int = Field(description="How many squares of the picture were looked at.")
    notes: list[str] = Field(description="What had to be done to look at it, such as padding.")


class Copy(BaseModel):
    """A region that occurs twice in the picture. Pixels are those of the displayed picture."""

    score: float = Field(
        ge=0, le=1, description="Probability that one is a copy of the other, at even odds."
    )
    box: tuple[int, int, int, int] = Field(
        description="x0, y0, x1, y1 of the one that is likelier the copy; x1 and y1 lie just "
        "outside."
    )
    polygon: list[tuple[int, int]] = Field(description="Its outer border, simplified.")
    origin_box: tuple[int, int, int, int] = Field(
        description="The same of the one that it seems to be copied from."
    )
    origin_polygon: list[tuple[int, int]] = Field(description="Its outer border, simplified.")
    direction: float = Field(
        ge=0.5,
        le=1,
        description="Probability that it was not the other way round; 0.5: nobody knows.",
    )
    degrees: float = Field(description="By how much it was turned, clockwise, after mirroring.")
    scale: float = Field(description="How much larger it was made.")
    mirrored: bool = Field(description="Was it?")


class Result(BaseModel):
    """What is said of one picture: the `Report` of the command and of Python, and its facts."""

    path: str = Field(description="The name under which the picture was sent, without folders.")
    sha256: str | None = Field(description="SHA-256 of the picture's bytes, in hex.")
    width: int | None = Field(description="Of the displayed picture, in pixels.")
    height: int | None = Field(description="Of the displayed picture, in pixels.")
    orientation: int | None = Field(description="EXIF orientation that was applied, 1 to 8.")
    verdict: Literal["no sign of editing", "inconclusive", "manipulated"] | None = Field(
        description="null if the picture could not be read."
    )
    score: float | None = Field(
        description="0 to 1: how strongly the picture as a whole looks edited; see `decision`."
    )
    area: float | None = Field(description="Share of the picture that lies in the mask, 0 to 1.")
    regions: list[Region] = Field(description="Largest and surest first, at most 50.")
    copies: list[Copy] = Field(
        description="Regions that occur twice, the surest first; the copies are marked in the heat "
        "map."
    )
    mask: str | None = Field(description="Link or data URI of the mask; null if not asked for.")
    heatmap: str | None = Field(description="Link or data URI of the heat map.")
    overlay: str | None = Field(description="Link or data URI of the overlay.")
    confidence_map: str | None = Field(
        description="Link or data URI of the confidence map; also null if the model has none."
    )
    mean_confidence: float | None = Field(
        description="0.5 to 1: with which probability the mask's answer at a pixel, edited or not, "
        "is right, were both equally likely there; the mean of all pixels. null if the model was "
        "not calibrated for it."
    )
    picture: str | None = Field(description="Link or data URI of the decoded picture.")
    model: str | None = Field(description="The model's name and a part of its weights' SHA-256.")
    error: str | None = Field(description="Why the picture could not be judged, in one sentence.")
    reason: str | None = Field(description="What the verdict rests on, in one sentence.")
    generated: Generated | None = Field(
        description="Was the whole picture generated? null if this server does not ask."
    )
    summary: str | None = Field(description="Both answers in one sentence; null with one answer.")
    disagree: bool = Field(description="Do the two answers contradict each other?")
    notes: list[str] = Field(
        description="What was changed or left out when the picture was read, or not kept here."
    )
    metadata: Metadata | None = Field(description="What the file says of itself.")
    format: str | None = Field(description="JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC.")
    jpeg_quality: int | None = Field(
        description="1 to 100, estimated from the quantisation tables; null where not possible."
    )
    threshold: float | None = Field(
        description="The probability from which a pixel belongs to the mask and the regions here."
    )
    decision: Decision | None = Field(description="The model's thresholds and their calibration.")
    seconds: float | None = Field(description="Time that the picture took, without waiting.")
    result: str | None = Field(
        description="Id for `/v1/results` and `/v1/report`; null if nothing is kept."
    )
    expires: str | None = Field(description="When the kept outputs are forgotten (RFC 3339).")


def decision_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `Decision` from those of `forgemap.scoring.Decision.to_dict`."""
    names = (
        *("manipulated_at", "clear_below", "mask_threshold", "doubt_area", "whole_area"),
        *("min_side", "min_jpeg_quality", "min_colours", "prevalence", "bounds"),
    )
    basis = str(values["calibrated_on"])
    meaning = (
        f"Scores from {values['manipulated_at']:.3f} on are judged manipulated, scores below "
        f"{values['clear_below']:.3f} show no sign of editing. "
    )
    meaning += (
        f"The thresholds were chosen on {basis}"
        if basis
        else "The thresholds are not calibrated: a score ranks pictures, but says nothing of how "
        "many untouched ones would score as high."
    )
    facts = {"calibrated_on": basis, "untouched": list(values["untouched"]), "meaning": meaning}
    return {name: values[name] for name in names} | facts
