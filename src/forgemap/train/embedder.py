"""embedder.py: train a network that tells generated pictures from real ones by contrast.

CoDE (Baraldi et al., ECCV 2024, arXiv 2407.20337): four views of each picture of a real and a
generated one; views of one class attract, those of the other class in the batch repel.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from ..classifiers import Source
from ..classifiers import save as save_classifier
from ..data.contrast import PairViews, ViewDataset
from ..data.twins import ProcessedDataset
from ..errors import ForgemapError
from ..models.build import build
from ..models.checkpoint import load_model, save_model
from ..models.embedder import Embedder
from ..models.huggingface import load_embedder
from ..models.stems import TraceStem
from .batches import loader
from .embedder_config import EmbedderConfig
from .embedder_data import Material, read_material
from .embedder_validation import Crops, embedded, normalised, validate
from .history import History
from .losses import Views, contrastive_loss, gather_rows, label_loss
from .processes import distributed, gathered, mean, start
from .state import RunFolder, WeightAverage, writing
from .steering import anywhere, interruptible, progress_bar, summary

__all__ = ["EmbedderConfig", "train"]

BUNDLED = Path(__file__).parents[1] / "weights" / "default"
"""The bundled localizer's folder, which `stem_weights: default` names."""


def train(config: EmbedderConfig, *, progress: bool = True) -> Path:
    """Train, or go on training where the folder's last checkpoint stands; returns the model folder.

    A run is determined by its configuration: killed at any moment and started again it ends with
    the same weights as an uninterrupted one (on CPU bit for bit). An interrupt (Ctrl-C) ends it
    after the current step with a checkpoint. The model folder also holds the classifiers that
    validated it, as ``<kind>.safetensors``.

    Raises:
        ForgemapError: a configuration, folder or checkpoint that cannot be used, or a disk too
            full, before any work starts; a picture that cannot be read, while it runs.
    """
    config.check()
    material = read_material(config)
    network = new_network(config)
    run = RunFolder(Path(config.out))
    run.check_space(network)
    run.claim(config)

    console = Console(stderr=True)
    fabric = start(config)
    epoch = config.epoch_steps or math.ceil(len(material.pairs) / config.batch)
    steps = config.epochs * epoch
    model, optimizer = distributed(fabric, network, lambda _: new_optimizer(network, config))
    average = WeightAverage(network, config.average)
    state = run.restore(network, optimizer, average)
    waited = int(state.schedule.get("waited", 0))
    history = History(run.path, state.step, enabled=fabric.is_global_zero)

    views = config.views(network.image_size, material.qualities)
    kind = ProcessedDataset if config.objective == "label" else ViewDataset
    samples = kind(material.pairs, views, config.seed)
    stream = iter(loader(samples, config, fabric, state.step, steps))  # type: ignore[arg-type]

    def look() -> int:
        """Validate the averaged network and keep it if it is the best; validations in vain."""
        with average.applied(network, config.half):
            scores = watch(fabric, network, material, config, run, state.best)
        network.train()
        better = scores["choice"] > state.best
        state.best = max(state.best, scores["choice"])
        history.validation(state.step, scores)
        if fabric.is_global_zero:
            bar.console.print(summary(state.step, scores))
        return 0 if better else waited + 1

    bar = progress_bar(console, enabled=progress and fabric.is_global_zero)
    with bar, interruptible() as interrupted:
        task = bar.add_task("training", total=steps, completed=state.step, loss="")
        stopping = False
        over = state.step >= steps or 0 < config.patience <= waited
        while not over and not stopping:
            rate = learning_rate(state.step, steps, config.warmup_epochs * epoch, config.lr)
            loss = step(
                fabric, model, optimizer, prepared(next(stream), network), config, state.step, rate
            )
            average.update(network)
            state.step += 1
            history.loss(state.step, loss, rate)
            bar.update(task, completed=state.step, loss=f"loss {history.smooth:.4f}")

            stopping = anywhere(fabric, interrupted.is_set())
            done = state.step == steps
            every = config.validate_every * epoch
            if len(material.held) and (done or (every and state.step % every == 0)):
                waited = look()
                state.schedule = {"waited": waited}
            over = done or 0 < config.patience <= waited
            if over or stopping or state.step % config.checkpoint_every == 0:
                run.store(fabric, network, optimizer, average, state)
    history.close()
    if not len(material.held):
        with average.applied(network, config.half):
            save(fabric, gathered(fabric, network), run, config)
    if not over:
        console.print(f"Stopped after step {state.step}; the same command goes on from there.")
    return run.model


def new_network(config: EmbedderConfig) -> Embedder:
    """The network as the run starts with it, in train mode; the seed determines it."""
    torch.manual_seed(config.seed)
    if config.init:
        network = load_embedder(config.init)[0]
    else:
        network = build({"architecture": "embedder", **config.model})  # type: ignore[assignment]
    if config.stem_weights:
        bundled = config.stem_weights == "default"
        source, _ = load_model(BUNDLED if bundled else config.stem_weights)
        if network.spectra and isinstance(source, Embedder):
            network.begin_as("traces", source, config.stem_weights)
        else:
            network.patches.copy_encoder(source, config.stem_weights)  # type: ignore[operator]
    if config.spectra_weights:
        beside, _ = load_embedder(config.spectra_weights)
        network.begin_as("spectra", beside, config.spectra_weights)
    if config.stem_frozen:
        if not isinstance(network.patches, TraceStem):
            raise ForgemapError(f"{config.init}: stem_frozen is for a stem of traces; it has none.")
        network.patches.freeze()
    return network.train()


def new_optimizer(network: nn.Module, config: EmbedderConfig) -> torch.optim.AdamW:
    """AdamW; biases, norms, the class token and positions are not decayed (as published)."""
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    plain = {"class_token", "positions"}
    plain = {name for name, p in parameters.items() if p.ndim < 2 or name.split(".")[-1] in plain}
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in parameters.items() if n not in plain]},
        {"params": [p for n, p in parameters.items() if n in plain], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        weight_decay=config.weight_decay,
    )


def learning_rate(step: int, steps: int, warmup: float, peak: float) -> float:
    """Of step number ``step``, counted from 0: a straight rise, then half a cosine down to 0."""
    if step < warmup:
        return peak * (step + 1) / math.ceil(warmup)
    return peak * (1 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup))) / 2


def step(
    fabric: Fabric,
    model: nn.Module,
    optimizer: Any,
    images: Tensor,
    config: EmbedderConfig,
    number: int,
    rate: float,
) -> float:
    """One optimiser step on images (2 N * views, 3, H, W), the real ones first; returns the loss.

    Of each picture there are four views in a row, or one for the objective "label".
    """
    torch.manual_seed(config.seed * 1_000_003 + number)  # dropout must not depend on a restart
    for group in optimizer.param_groups:
        group["lr"] = rate
    vectors = model(images)
    if config.objective == "label":
        labels = torch.tensor([0, 1], device=vectors.device)
        loss = label_loss(vectors, labels.repeat_interleave(len(vectors) // 2))
    else:
        loss = contrast(fabric, vectors.unflatten(0, (-1, len(Views._fields))), config, number)
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    if config.clip:
        fabric.clip_gradients(model, optimizer, max_norm=config.clip)
    optimizer.step()
    return mean(fabric, loss)


def contrast(fabric: Fabric, vectors: Tensor, config: EmbedderConfig, number: int) -> Tensor:
    """CoDE's loss of step ``number``; vectors (2 N, 4, D), the real ones first."""
    count = len(vectors) // 2
    chance = torch.Generator().manual_seed(
        (config.seed * 1_000_003 + number) * 1024 + fabric.global_rank
    )
    real, fake = (of_class(part, others(count, chance)) for part in vectors.chunk(2))
    gather = gather_rows if config.gather else None
    return contrastive_loss(real, fake, config.temperature, gather).total


def prepared(batch: PairViews, network: Embedder) -> Tensor:
    """The views of N pairs -> images (2 N * views, 3, H, W), the real ones first."""
    return normalised(torch.cat([batch.real, batch.fake]).flatten(0, 1), network)


def of_class(vectors: Tensor, order: Tensor) -> Views:
    """(N, 4, D) of one class -> its views; augmented ones are those of other pictures.

    So pictures are to resemble their class and not only themselves; a picture's crops stay with it.
    """
    plain, augmented, whole, part = vectors.unbind(1)
    return Views(plain, augmented[order.to(vectors.device)], whole, part)


def others(count: int, chance: torch.Generator) -> Tensor:
    """A random permutation (N,) that leaves none in its place: one ring through all of them."""
    ring = torch.randperm(count, generator=chance)
    order = torch.empty(count, dtype=torch.long)
    order[ring] = ring.roll(1)
    return order


def watch(
    fabric: Fabric,
    network: Embedder,
    material: Material,
    config: EmbedderConfig,
    run: RunFolder,
    best: float,
) -> dict[str, float]:
    """The scores of a network in eval mode; it and its classifiers are saved if they are best."""
    settings = config.views(network.image_size, material.qualities)
    fit = Crops(material.fit, settings, config.seed, processed=config.objective == "label")
    held = Crops(material.held, settings, config.seed)
    learned, tested = (embedded(network, crops, config.workers) for crops in (fit, held))
    scores: dict[str, float] = {}
    network = gathered(fabric, network)
    if fabric.is_global_zero:
        source = Source(run.path.name, network.fingerprint(), network.width)
        scores, classifiers = validate(
            learned, tested, config.classifiers, (config.choice, config.measure), source
        )
        if scores["choice"] > best:
            save(fabric, network, run, config)
            with writing(run.path):
                for kind, classifier in classifiers.items():
                    save_classifier(classifier, run.model / f"{kind}.safetensors")
    return fabric.broadcast(scores)


def save(fabric: Fabric, network: Embedder, run: RunFolder, config: EmbedderConfig) -> None:
    """Write the model folder, from one process."""
    if fabric.is_global_zero:
        training = run.settings(config)
        training["held_out"] = [Path(path).name for path in config.held_out]
        save_model(network, run.model, extra={"training": training}, half=config.half)
