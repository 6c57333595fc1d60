"""config.py: LocalizerConfig, everything that determines a training run, and its checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..data.views import PERTURBATIONS
from ..errors import ForgemapError
from ..models.trainable import SCHEMES, read_scheme
from .processes import STRATEGIES
from .recipes import RECIPES, with_recipe
from .schedules import SCHEDULES
from .validation import CHOICES


def described(default: Any, help: str) -> Any:
    """A dataclass field with the sentence that the command line shows for it."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class LocalizerConfig:
    """Everything that determines a training run; written to the run's folder as YAML."""

    recipe: str = described("default", f"Values to start from: {', '.join(RECIPES)}.")
    data: list[str] = described([], "Manifests, folders that hold one, or data sets as NAME:ROOT.")
    out: str = described("runs/localizer", "Folder of the run: checkpoints, curves, model.")
    # The network.
    architecture: str = described("tracenet", "tracenet or declip.")
    backbone: str = described(
        "vit", "DeCLIP: vit, rn50, vit+rn50, xception or transformers:<folder or hub id>."
    )
    backbone_weights: list[str] = described(
        [], "DeCLIP: CLIP's weights, a file or a name of `forgemap models list` for each tower."
    )
    layer: str = described(
        "", "DeCLIP: the layer that is decoded, as layer20 for the vit, or several: layer6+layer12."
    )
    trainable: str = described(
        "", f"DeCLIP: what of the backbone learns: {', '.join(SCHEMES)}; as published if empty."
    )
    decoder: str = described(
        "conv-20", "DeCLIP: linear, attention, conv-4, conv-12, conv-20 or gradcam."
    )
    decoder_init: str = described(
        "kernels", "kernels: N(0, 0.02); published: the BatchNorms' scales as well, as DeCLIP's."
    )
    model: dict[str, Any] = described({}, "Further arguments of the network (sizes), by name.")
    init: str = described("", "Model folder whose weights to start from.")
    # What a sample is.
    samples: str = described(
        "crops", "crops: endless, at native resolution; whole: every picture once per epoch."
    )
    crop: int = described(256, "Crops: side in pixels at native resolution.")
    augment: float = described(1.0, "Crops: strength of the augmentation, 0 (flips) to 1.")
    graphics: float = described(
        0.0, "Crops: share over which logos, captions or boxes are drawn, which are no edits."
    )
    textures: float = described(
        0.0, "Crops: share with things of a strong texture in them, which are no edits."
    )
    compressed: float = described(
        0.0, "Crops: share saved as JPEG or WebP last, where more than half of --augment."
    )
    untouched: float = described(0.4, "Crops: share that comes from untouched pictures.")
    weights: dict[str, float] = described(
        {}, "Crops: shares of the methods among the edited, where not 1: {method: weight}."
    )
    perturb: str = described("none", f"Whole pictures: {', '.join(PERTURBATIONS)}.")
    views: int = described(
        0, "Whole pictures: perturbed views of each, used in turn; 0 = a new one in every epoch."
    )
    cache: str = described(
        "", "Folder of the frozen backbone's features, computed once and shared between runs."
    )
    cache_limit: float = described(20.0, "Largest size of the cache in GB; the oldest give way.")
    # What is minimised.
    supervision: str = described(
        "masks", "masks, or image: labels of whole pictures alone, no mask is read in training."
    )
    dice: float = described(1.0, "Weight of the Dice term beside the cross-entropy.")
    image: float = described(0.25, "Weight of the image-level term.")
    # How.
    batch: int = described(16, "Samples in one step, over all devices.")
    steps: int = described(20_000, "Steps of the whole run.")
    epochs: int = described(0, "Whole pictures: epochs at most, in place of steps; 0 = steps.")
    schedule: str = described("trapezoid", f"Of the learning rate: {', '.join(SCHEDULES)}.")
    lr: float = described(1e-3, "Peak learning rate of AdamW.")
    betas: list[float] = described([0.9, 0.999], "AdamW's two decay rates.")
    weight_decay: float = described(1e-4, "Weight decay of AdamW.")
    warmup: int = described(300, "Steps over which the learning rate rises from 0.")
    decay: float = described(0.3, "Trapezoid: last share of the run, over which the rate falls.")
    patience: int = described(5, "Plateau: validations without improvement before the rate falls.")
    tolerance: float = described(0.001, "Plateau: a smaller improvement counts as none.")
    lr_factor: float = described(0.1, "Plateau: what the rate is multiplied by.")
    lr_floor: float = described(1e-6, "Plateau: a rate below this ends the run.")
    average: float = described(0.998, "Decay of the running average of the weights; 0 = none.")
    clip: float = described(1.0, "Largest norm of the gradient; 0 = any.")
    seed: int = described(0, "Seed of the weights and of every sample.")
    precision: str = described("32-true", "32-true, or bf16-mixed where the processor has it.")
    accelerator: str = described("auto", "cpu, cuda or auto.")
    devices: int = described(1, "Devices on each machine; torchrun's number counts.")
    nodes: int = described(1, "Machines; start the command on each (see torchrun).")
    strategy: str = described("auto", f"On several devices: {', '.join(STRATEGIES)}.")
    sync_batchnorm: bool = described(
        True, "BatchNorm statistics over all devices; on CPUs each process has its own."
    )
    workers: int = described(1, "Processes that read and augment pictures; 0 = none.")
    # How it is watched.
    choice: str = described(
        "balanced", f"The best checkpoint is the best by: {', '.join(CHOICES)}."
    )
    validate_every: int = described(1000, "Steps between validations; 0 = after every epoch.")
    validate_on: int = described(240, "Pictures of the val split, over all methods; 0 = all.")
    checkpoint_every: int = described(200, "Steps between checkpoints.")

    # What may differ between a run and its continuation.
    FREE: ClassVar[tuple[str, ...]] = (
        *("recipe", "out", "steps", "epochs", "decay", "workers", "cache", "cache_limit"),
        *("validate_every", "validate_on", "checkpoint_every"),
        *("devices", "nodes", "strategy"),
    )

    @classmethod
    def of(cls, **values: Any) -> LocalizerConfig:
        """A configuration from its recipe's values and, above them, those given."""
        return cls(**with_recipe(values))

    def check(self) -> None:
        """Raise a ForgemapError for the first value that cannot work, before any long work."""
        names = {
            "recipe": RECIPES,
            "samples": ("crops", "whole"),
            "supervision": ("masks", "image"),
            "decoder_init": ("kernels", "published"),
            "perturb": PERTURBATIONS,
            "schedule": SCHEDULES,
            "choice": CHOICES,
            "precision": ("32-true", "bf16-mixed"),
            "accelerator": ("auto", "cpu", "cuda"),
            "strategy": STRATEGIES,
        }
        for name, valid in names.items():
            if (value := getattr(self, name)) not in valid:
                raise ForgemapError(f"unknown {name} {value!r}; valid: {', '.join(valid)}.")
        rules = {
            "data": (bool(self.data), "name at least one manifest"),
            "crop": (self.crop >= 32 and self.crop % 16 == 0, "a multiple of 16, at least 32"),
            "augment": (0 <= self.augment <= 1, "between 0 and 1"),
            "graphics": (0 <= self.graphics <= 1, "between 0 and 1"),
            "textures": (0 <= self.textures <= 1, "between 0 and 1"),
            "compressed": (0 <= self.compressed <= 1, "between 0 and 1"),
            "untouched": (0 <= self.untouched <= 1, "between 0 and 1"),
            "views": (self.views >= 0, "at least 0"),
            "cache_limit": (self.cache_limit > 0, "above 0"),
            "devices": (self.devices >= 1, "at least 1"),
            "nodes": (self.nodes >= 1, "at least 1"),
            "batch": (self.batch >= max(1, self.devices), "at least one sample for each device"),
            "steps": (self.steps >= 1, "at least 1"),
            "epochs": (self.epochs >= 0, "at least 0"),
            "lr": (self.lr > 0, "above 0"),
            "betas": (
                len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
                "two numbers, each at least 0 and below 1",
            ),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "warmup": (self.warmup >= 0, "at least 0"),
            "decay": (0 <= self.decay <= 1, "between 0 and 1"),
            "patience": (self.patience >= 1, "at least 1"),
            "tolerance": (self.tolerance >= 0, "at least 0"),
            "lr_factor": (0 < self.lr_factor < 1, "between 0 and 1"),
            "lr_floor": (
                self.lr_floor > 0 and (self.lr_floor <= self.lr or self.schedule != "plateau"),
                "above 0 and at most the learning rate",
            ),
            "average": (0 <= self.average < 1, "at least 0 and below 1"),
            "dice": (self.dice >= 0, "at least 0"),
            "image": (self.image >= 0, "at least 0"),
            "clip": (self.clip >= 0, "at least 0"),
            "workers": (self.workers >= 0, "at least 0"),
            "validate_every": (self.validate_every >= 0, "at least 0"),
            "validate_on": (self.validate_on >= 0, "at least 0"),
            "checkpoint_every": (self.checkpoint_every >= 1, "at least 1"),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise ForgemapError(f"{name} is {getattr(self, name)!r}; it must be {wanted}.")
        if self.trainable:
            read_scheme(self.trainable)
        self._check_combinations()

    def _check_combinations(self) -> None:
        """Values that are possible alone, but not together: what to change, in one sentence."""
        whole, weak = self.samples == "whole", self.supervision == "image"
        declip = self.architecture == "declip"
        gradcam = declip and self.decoder == "gradcam"
        impossible = (
            (
                self.batch % (self.devices * self.nodes),
                f"batch {self.batch} cannot be shared by {self.devices * self.nodes} devices.",
            ),
            (
                self.strategy == "fsdp" and self.cache,
                "--cache keeps the frozen backbone out of training, which fsdp would share out: "
                "use --strategy ddp.",
            ),
            (
                self.strategy == "fsdp" and self.precision != "32-true",
                "--strategy fsdp needs --precision 32-true.",
            ),
            (
                self.trainable and not declip,
                "--trainable is for --architecture declip.",
            ),
            (
                whole and self.architecture == "tracenet",
                "tracenet looks at native resolution: use --samples crops.",
            ),
            (
                weak and not whole,
                "a crop of an edited picture need not show the edit: --supervision image needs "
                "--samples whole.",
            ),
            (
                weak and CHOICES[self.choice].needs_masks,
                f"image labels cannot tell {self.choice}: --supervision image needs --choice ap.",
            ),
            (
                gradcam and not weak,
                "gradcam is a classifier of whole pictures: it learns by --supervision image.",
            ),
            (
                not whole and self.perturb != "none",
                f"--perturb {self.perturb} is for --samples whole; crops have --augment.",
            ),
            (
                whole and max(self.graphics, self.textures, self.compressed) > 0,
                "--graphics, --textures and --compressed change crops: whole pictures are taken as "
                "they are.",
            ),
            (
                self.views and self.perturb == "none",
                "--views counts perturbed views: choose a --perturb.",
            ),
            (
                self.epochs and not whole,
                "--epochs counts whole pictures: use --samples whole, or --steps.",
            ),
            (
                not whole and not self.validate_every,
                "an endless stream of crops has no epochs: --validate-every must be above 0.",
            ),
            (
                self.cache and not whole,
                "--cache keeps features of whole pictures: use --samples whole.",
            ),
            (
                self.cache and self.perturb != "none" and not self.views,
                "endless views cannot be cached: give their number by --views.",
            ),
            (
                self.decoder_init == "published" and not declip,
                "--decoder-init published is for --architecture declip.",
            ),
            (
                self.backbone_weights and (self.init or not declip),
                "--backbone-weights is for a new network of --architecture declip.",
            ),
            (
                self.decoder_init == "published" and self.init,
                "--init brings the decoder's weights: add --decoder-init kernels.",
            ),
        )
        for applies, sentence in impossible:
            if applies:
                raise ForgemapError(sentence)

    def model_config(self) -> dict[str, Any]:
        """What `models.build.build` is given."""
        config: dict[str, Any] = {"architecture": self.architecture, **self.model}
        if self.architecture == "declip":
            config |= {"backbone": self.backbone, "decoder": self.decoder}
            config |= {"layer": self.layer} if self.layer else {}
            config |= {"trainable": self.trainable} if self.trainable else {}
        return config
