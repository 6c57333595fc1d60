"""records.py: manifests are read whole or refused in one sentence; splits follow the file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from forgemap.data.records import read_manifest, split_of
from forgemap.errors import DataError


def write_manifest(folder: Path, *rows: dict[str, Any] | str) -> Path:
    """A manifest of these rows; the pictures and masks that they name are made too."""
    for row in rows:
        if isinstance(row, dict):
            for key in ("image", "mask"):
                if row.get(key):
                    (folder / row[key]).write_bytes(b"a picture")
    path = folder / "manifest.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


EDITED = {
    "image": "a.png",
    "mask": "a-mask.png",
    "source": "photo.jpg",
    "method": "splice",
    "split": "train",
    "parameters": {"feather": 2},
    "seed": 7,
}
UNTOUCHED = {**EDITED, "image": "b.png", "mask": None, "method": "none", "parameters": {}}


def test_manifest_is_read_from_its_file_and_from_its_folder(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, EDITED, UNTOUCHED)
    edited, untouched = read_manifest(path)
    assert read_manifest(tmp_path) == [edited, untouched]
    assert edited.image == tmp_path / "a.png"
    assert edited.mask == tmp_path / "a-mask.png"
    assert (edited.source, edited.method, edited.split) == ("photo.jpg", "splice", "train")
    assert (edited.parameters, edited.seed) == ({"feather": 2}, 7)
    assert edited.manipulated
    assert untouched.mask is None
    assert not untouched.manipulated


def test_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No manifest at .*manifest.jsonl"):
        read_manifest(tmp_path)


def test_empty_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lists no pictures"):
        read_manifest(write_manifest(tmp_path))


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ("{not json", "Line 2 of .* is not JSON"),
        ('["a", "list"]', "Line 2 of .* is not a record"),
        ("3", "Line 2 of .* is not a record"),
        ({**EDITED, "split": "holdout"}, "Line 2 .* 'holdout'.*train, val, test"),
        ({**EDITED, "mask": None}, "Line 2 .* 'splice' but no mask"),
        ({**EDITED, "seed": "seven"}, "Line 2 of .* is not a record"),
        ({k: v for k, v in EDITED.items() if k != "method"}, "Line 2 of .* has no 'method'"),
        ({k: v for k, v in EDITED.items() if k != "image"}, "Line 2 of .* has no 'image'"),
    ],
)
def test_bad_line_is_refused_with_its_number(
    tmp_path: Path, second: dict[str, Any] | str, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        read_manifest(write_manifest(tmp_path, EDITED, second))


@pytest.mark.parametrize("missing", ["a.png", "a-mask.png"])
def test_missing_picture_or_mask_is_named(tmp_path: Path, missing: str) -> None:
    path = write_manifest(tmp_path, EDITED)
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=f"Line 1 of .*{missing}, which does not exist"):
        read_manifest(path)


def test_split_follows_the_first_two_hex_digits() -> None:
    assert [split_of(f"{first:02x}" + "0" * 62) for first in (0, 25, 26, 51, 52, 255)] == [
        "test",
        "test",
        "val",
        "val",
        "train",
        "train",
    ]


def test_splits_hold_about_10_10_and_80_percent() -> None:
    splits = [split_of(hashlib.sha256(str(i).encode()).hexdigest()) for i in range(5000)]
    shares = [splits.count(name) / len(splits) for name in ("test", "val", "train")]
    assert shares == pytest.approx([0.1, 0.1, 0.8], abs=0.02)
