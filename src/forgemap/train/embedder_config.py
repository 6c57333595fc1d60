"""embedder_config.py: EmbedderConfig, everything that determines an embedder's training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from ..classifiers import KINDS
from ..data.contrast import ENCODINGS, FITS, ViewSettings
from ..errors import ForgemapError
from .config import described
from .processes import STRATEGIES

# Baraldi et al. (ECCV 2024, arXiv 2407.20337) and its published code where the paper is silent.
# Views are cut and never resized, as at inference; the published script can do either.
CODE: dict[str, Any] = {
    "model": {},
    "window": 0,
    "fit": "crop",
    "transforms": 2,
    "global_area": [0.4, 1.0],
    "local_area": [0.05, 0.4],
    "temperature": 0.1,
    "gather": False,
    "batch": 1024,
    "devices": 4,
    "epochs": 150,
    "epoch_steps": 1700,
    "warmup_epochs": 5.0,
    "lr": 2e-3,
    "betas": [0.9, 0.999],
    "weight_decay": 2e-5,
    "average": 0.0,
    "clip": 0.0,
    "precision": "bf16-mixed",
    "classifiers": ["linear", "nearest", "one-class"],
    "choice": "linear",
    "fit_on": 9600,
    "validate_on": 4800,
    "patience": 6,
}

#: The recipes by name: fields of `EmbedderConfig` and their values, where they differ from its own.
RECIPES: dict[str, dict[str, Any]] = {"default": {}, "code": CODE}


#: By what of a classifier the best checkpoint is chosen: balanced accuracy, or the ROC's area.
MEASURES = ("balanced", "auc")

#: What an embedder can be trained by.
OBJECTIVES = {
    "contrast": "CoDE's loss on four views of each picture",
    "label": "the class of one processed crop of each, by a classifier that stays as it is",
}


#: What only views and the loss of "contrast" ask for.
CONTRAST = (
    *("window", "fit", "transforms", "global_area", "local_area", "native"),
    *("temperature", "gather"),
)


@dataclass(frozen=True)
class EmbedderConfig:
    """Everything that determines a training run; written to the run's folder as YAML."""

    recipe: str = described("default", f"Values to start from: {', '.join(RECIPES)}.")
    data: list[str] = described(
        [], "Folders of real and generated pictures, manifests, or one folder of shards."
    )
    held_out: list[str] = described(
        [], "The same, to validate on; by default the val split of the data."
    )
    leave_out: list[str] = described([], "Generators that are not trained on (folders).")
    exclude: str = described("", "File of ids of records that are passed over (shards).")
    out: str = described("runs/embedder", "Folder of the run: checkpoints, curves, model.")
    model: dict[str, Any] = described({}, "Arguments of the network, where not CoDE's, by name.")
    init: str = described("", "Embedder's folder whose weights to start from.")
    stem_weights: str = described(
        "",
        "Localizer's folder (a TraceNet) whose encoder a stem of traces or both starts as, default "
        "= the bundled one; or an embedder's on traces, as which one on both starts.",
    )
    spectra_weights: str = described(
        "", "Embedder's folder on spectra, as which the part on spectra of one on both starts."
    )
    stem_frozen: bool = described(
        False,
        "Whether the encoder stays as stem_weights or init brought it; a stem of traces or both.",
    )
    often: dict[str, int] = described(
        {}, "How often a generator comes in each round of all, where not once, by name (folders)."
    )
    # What is seen.
    window: int = described(
        512, "Pictures are first cut to at most so many pixels a side; 0 = not at all."
    )
    fit: str = described("crop", f"How views get the network's size: {', '.join(FITS)}.")
    transforms: int = described(2, "Most transforms of one view; each gets 0 to so many.")
    global_area: list[float] = described([0.4, 1.0], "Share of the area in a large crop.")
    local_area: list[float] = described([0.05, 0.4], "Share of the area in a small crop.")
    native: bool = described(
        False,
        "Whether crops keep their resolution, mirrored until they fill the view (their area is a "
        "share of the view's), or are resized, as published.",
    )
    encodings: str = described(
        "match",
        f"So that no encoding tells the class: {'; '.join(map(': '.join, ENCODINGS.items()))}.",
    )
    augment: float = described(
        0.0, "Strength of the processing of a crop, 0 to 1, for the objective label."
    )
    graphics: float = described(
        0.0, "Share of crops under logos, captions or boxes, for the objective label."
    )
    benign: float = described(
        0.0,
        "Share of crops after one honest processing (see synth --benign), for the objective label.",
    )
    twins: bool = described(
        False,
        "Whether a pair's generated picture is made of its real one: the file of the same name "
        "(folders of synth --whole).",
    )
    # What is minimised.
    objective: str = described(
        "contrast", f"What the network learns by: {'; '.join(map(': '.join, OBJECTIVES.items()))}."
    )
    temperature: float = described(0.1, "Of the contrastive loss: cosines are divided by it.")
    gather: bool = described(False, "Whether negatives come from all devices, not each its own.")
    # How.
    batch: int = described(32, "Pairs of a real and a generated picture in one step, all devices.")
    epochs: int = described(100, "Epochs of the whole run.")
    epoch_steps: int = described(0, "Steps of an epoch; 0 = one time through the real pictures.")
    warmup_epochs: float = described(5.0, "Epochs over which the learning rate rises from 0.")
    lr: float = described(1e-3, "Peak learning rate of AdamW; falls to 0 by a cosine.")
    betas: list[float] = described([0.9, 0.999], "AdamW's two decay rates.")
    weight_decay: float = described(2e-5, "Weight decay of matrices; biases and norms have none.")
    average: float = described(0.0, "Decay of the running average of the weights; 0 = none.")
    half: bool = described(
        False, "Whether matrices are validated and saved in 16 bits: half the file."
    )
    clip: float = described(1.0, "Largest norm of the gradient; 0 = any.")
    seed: int = described(0, "Seed of the weights and of every sample.")
    precision: str = described("32-true", "32-true, or bf16-mixed where the processor has it.")
    accelerator: str = described("auto", "cpu, cuda or auto.")
    devices: int = described(1, "Devices on each machine; torchrun's number counts.")
    nodes: int = described(1, "Machines; start the command on each (see torchrun).")
    strategy: str = described("auto", f"On several devices: {', '.join(STRATEGIES)}.")
    workers: int = described(1, "Processes that read and transform pictures; 0 = none.")
    # How it is watched.
    classifiers: list[str] = described(
        ["linear", "nearest", "one-class"], f"What validates: of {', '.join(KINDS)}."
    )
    choice: str = described("linear", "Which classifier chooses the best checkpoint.")
    measure: str = described(
        "balanced",
        f"By what of it: {', '.join(MEASURES)}; auc where thresholds are calibrated afterwards.",
    )
    fit_on: int = described(1200, "Training pictures that the classifiers are fitted on.")
    validate_on: int = described(600, "Held-out pictures, spread over the generators; 0 = all.")
    validate_every: int = described(1, "Epochs between validations; 0 = only at the end.")
    patience: int = described(0, "Validations without improvement that end the run; 0 = none.")
    checkpoint_every: int = described(200, "Steps between checkpoints.")

    # What may differ between a run and its continuation.
    FREE: ClassVar[tuple[str, ...]] = (
        *("recipe", "out", "epochs", "workers", "classifiers", "choice", "measure"),
        *("fit_on", "held_out", "half"),
        *("validate_on", "validate_every", "patience", "checkpoint_every", "strategy"),
    )

    @classmethod
    def of(cls, **values: Any) -> EmbedderConfig:
        """A configuration from its recipe's values and, above them, those given."""
        return cls(**_with_recipe(values))

    def check(self) -> None:
        """Raise a ForgemapError for the first value that cannot work, before any long work."""
        names: dict[str, tuple[str, ...]] = {
            "recipe": tuple(RECIPES),
            "fit": tuple(FITS),
            "encodings": tuple(ENCODINGS),
            "objective": tuple(OBJECTIVES),
            "choice": tuple(self.classifiers),
            "measure": MEASURES,
            "precision": ("32-true", "bf16-mixed"),
            "accelerator": ("auto", "cpu", "cuda"),
            "strategy": tuple(STRATEGIES),
        }
        for name, valid in names.items():
            if (value := getattr(self, name)) not in valid:
                raise ForgemapError(f"unknown {name} {value!r}; valid: {', '.join(valid)}.")
        if unknown := [name for name in self.classifiers if name not in KINDS]:
            raise ForgemapError(f"unknown classifier {unknown[0]!r}; valid: {', '.join(KINDS)}.")

        def area(values: list[float]) -> tuple[bool, str]:
            fits = len(values) == 2 and 0 < values[0] <= values[1] <= 1
            return fits, "two shares of the area above 0 and at most 1, the smaller first"

        world = self.devices * self.nodes
        rules = {
            "data": (bool(self.data), "name at least one folder"),
            "window": (self.window == 0 or self.window >= 32, "0 or at least 32"),
            "transforms": (0 <= self.transforms <= 19, "between 0 and 19"),
            "global_area": area(self.global_area),
            "local_area": area(self.local_area),
            "augment": (0 <= self.augment <= 1, "between 0 and 1"),
            "graphics": (0 <= self.graphics <= 1, "between 0 and 1"),
            "benign": (0 <= self.benign <= 1, "between 0 and 1"),
            "temperature": (self.temperature > 0, "above 0"),
            "devices": (self.devices >= 1, "at least 1"),
            "nodes": (self.nodes >= 1, "at least 1"),
            "batch": (
                self.batch >= 2 * world and self.batch % max(1, world) == 0,
                f"a multiple of the devices ({world}), at least 2 pairs for each",
            ),
            "epochs": (self.epochs >= 1, "at least 1"),
            "epoch_steps": (self.epoch_steps >= 0, "at least 0"),
            "warmup_epochs": (self.warmup_epochs >= 0, "at least 0"),
            "lr": (self.lr > 0, "above 0"),
            "betas": (
                len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
                "two numbers, each at least 0 and below 1",
            ),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "average": (0 <= self.average < 1, "at least 0 and below 1"),
            "clip": (self.clip >= 0, "at least 0"),
            "workers": (self.workers >= 0, "at least 0"),
            "fit_on": (self.fit_on >= 4, "at least 4"),
            "validate_on": (self.validate_on >= 0, "at least 0"),
            "validate_every": (self.validate_every >= 0, "at least 0"),
            "patience": (self.patience >= 0, "at least 0"),
            "checkpoint_every": (self.checkpoint_every >= 1, "at least 1"),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise ForgemapError(f"{name} is {getattr(self, name)!r}; it must be {wanted}.")
        begun = EmbedderConfig.of(recipe=self.recipe)
        idle = [n for n in CONTRAST if getattr(self, n) != getattr(begun, n)]
        if self.objective == "label" and idle:
            raise ForgemapError(
                f"{idle[0]} is for --objective contrast; label takes one crop of each picture, "
                "processed by benign, augment and graphics."
            )
        if self.objective == "contrast" and (self.augment or self.graphics or self.benign):
            raise ForgemapError(
                "augment, graphics and benign process the crops of --objective label; views of the "
                "contrastive loss have transforms."
            )
        if self.stem_weights and (self.init or self.model.get("stem") not in ("traces", "both")):
            raise ForgemapError(
                "stem_weights is for a new network with --model '{stem: traces}' or "
                "'{stem: both}', without --init."
            )
        if self.spectra_weights and (self.init or self.model.get("stem") != "both"):
            raise ForgemapError(
                "spectra_weights is for a new network with --model '{stem: both}', without --init."
            )
        if self.stem_frozen and not (self.stem_weights or self.init):
            raise ForgemapError("stem_frozen needs stem_weights or init: what is to stay.")
        if wrong := [n for n, times in self.often.items() if type(times) is not int or times < 1]:
            raise ForgemapError(f"often: {wrong[0]} must be a whole number of times, at least 1.")
        if self.strategy == "fsdp" and self.precision != "32-true":
            raise ForgemapError("--strategy fsdp needs --precision 32-true.")

    def views(self, side: int, qualities: tuple[int, ...]) -> ViewSettings:
        """How pictures become views of ``side`` pixels."""
        from ..synth.benign import sometimes

        return ViewSettings(
            side=side,
            transforms=self.transforms,
            fit=self.fit,
            window=self.window,
            global_area=(self.global_area[0], self.global_area[1]),
            local_area=(self.local_area[0], self.local_area[1]),
            native=self.native,
            encodings=self.encodings,
            augment=self.augment,
            graphics=self.graphics,
            honest=partial(sometimes, share=self.benign) if self.benign else None,
            qualities=qualities,
        )


def _with_recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    name = values.get("recipe", "default")
    if name not in RECIPES:
        raise ForgemapError(f"unknown recipe {name!r}; valid: {', '.join(RECIPES)}.")
    return {**RECIPES[name], **values}
