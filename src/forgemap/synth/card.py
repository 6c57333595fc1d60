"""card.py: the README.md that goes with made pictures: a dataset card of the Hugging Face hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from forgemap.data.records import MANIFEST, SPLITS, UNTOUCHED
from forgemap.synth.benign import BENIGN

CARD = "README.md"
Row = Mapping[str, Any]

TEXT = """{head}
# {title}

{total} pictures made by `forgemap synth` from {photos} photographs: {edited} edited ones with exact
masks (white = edited pixel) and {untouched} untouched ones that were processed in the same way.
`{manifest}` lists them, one JSON object a line, with paths relative to it; everything made from one
photograph shares its split, which follows from the SHA-256 of the photograph's bytes.

Made with

| setting | |
| --- | --- |
{settings}

The same settings and photographs give the same pictures. SHA-256 of `{manifest}`:
`{digest}`.

## What is in it

| method | {splits} |
| --- | {rulers} |
{methods}
{processing}
Photographs came from: {sources}. They are under the licences of those who took them, and so is
what was made from them: check before you pass this folder on.

## What it is for, and what not

Training, choosing thresholds, comparing methods. The edits are drawn at random: regions do not
follow what a forger would choose, and no hand has retouched them. A score on these pictures says
how well *such* edits are found, not how a method does on forgeries from elsewhere. The masks say
where pixels were replaced{overlays}.
"""


def dataset_card(rows: Sequence[Row], described: Row, manifest: str) -> str:
    """Text of the card.

    Args:
        rows: of the manifest.
        described: the settings, see `Settings.describe`.
        manifest: the manifest's text.
    """
    what = "Pictures and what autoencoders made of them" if described.get("whole") else "Edits"
    title = f"{what}, Forgemap, seed {described['seed']}"
    edited = sum(row["method"] != UNTOUCHED for row in rows)
    size = next(
        name
        for limit, name in ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e9, "n>100K"))
        if len(rows) < limit
    )
    head = {
        "pretty_name": title,
        "license": "other",
        "license_name": "that-of-the-photographs",
        "task_categories": ["image-segmentation", "image-classification"],
        "tags": ["image-forensics", "manipulation-localization", "synthetic"],
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": MANIFEST}],
    }
    splits = [name for name in SPLITS if any(row["split"] == name for row in rows)]
    counts = Counter((row["method"], row["split"]) for row in rows)
    methods = sorted({row["method"] for row in rows}, key=lambda name: (name == UNTOUCHED, name))
    folders = Counter(
        Path(source).parent.name or "." for source in {str(row["source"]) for row in rows}
    )
    return TEXT.format(
        head=f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        title=title,
        total=f"{len(rows):,}",
        photos=f"{len({row['source_sha256'] for row in rows}):,}",
        edited=f"{edited:,}",
        untouched=f"{len(rows) - edited:,}",
        manifest=MANIFEST,
        digest=sha256(manifest.encode()).hexdigest(),
        settings="\n".join(f"| {key} | {_words(value)} |" for key, value in described.items()),
        splits=" | ".join(splits),
        rulers=" | ".join("---:" for _ in splits),
        methods="\n".join(
            f"| {'untouched' if m == UNTOUCHED else m} | "
            + " | ".join(f"{counts[m, split]:,}" for split in splits)
            + " |"
            for m in methods
        ),
        processing=_processing(rows),
        sources=", ".join(f"{name} ({count:,})" for name, count in sorted(folders.items())),
        overlays="; text, logos and frames laid over a picture openly (processing) are not marked"
        if any(BENIGN[kind].family == "overlay" for row in rows for kind in _kinds(row))
        else "",
    )


def _processing(rows: Sequence[Row]) -> str:
    """How often each honest processing was drawn; nothing where there is none."""
    kinds = Counter(kind for row in rows for kind in _kinds(row))
    if not kinds:
        return ""
    lines = "\n".join(f"| {kind} | {count:,} |" for kind, count in sorted(kinds.items()))
    return (
        "\nHonest processing, before or after the edit (a picture may have had two):\n\n"
        f"| processing | pictures |\n| --- | ---: |\n{lines}\n"
    )


def _kinds(row: Row) -> list[str]:
    return [kind for kind in str(row.get("benign", "")).split("+") if kind]


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
