"""A mapped file's pages can be given back, and nothing but them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from forgemap.engines.resident import MappedFile

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="needs /proc and madvise"
)

SIZE = 8 << 20


def resident(path: Path) -> int:
    """Bytes of a file's mappings that are in this process's memory."""
    text = Path("/proc/self/smaps").read_text()
    parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.MULTILINE)
    mine = [part for part in parts if str(path) in part.partition("\n")[0]]
    return sum(1024 * int(re.search(r"^Rss: +(\d+)", part, re.MULTILINE)[1]) for part in mine)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model with spaces.bin"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    return path


def test_read_pages_are_given_back_and_read_the_same_again(weights: Path) -> None:
    mapped = MappedFile(weights)
    assert int(mapped.bytes.sum()) == SIZE // 256 * sum(range(256))
    assert resident(weights) == SIZE
    mapped.release()
    assert resident(weights) == 0
    assert bytes(mapped.bytes) == weights.read_bytes()
    with mapped.released():
        assert mapped.bytes[: SIZE // 2].any()
    assert resident(weights) == 0


def test_the_file_cannot_be_changed_through_its_mapping(weights: Path) -> None:
    before = weights.read_bytes()
    mapped = MappedFile(weights)
    mapped.bytes[0] = 77
    del mapped
    assert weights.read_bytes() == before


def read_and_fail(mapped: MappedFile) -> None:
    with mapped.released():
        raise ValueError(f"the last byte is {mapped.bytes[::-1][0]}")


def test_pages_are_given_back_when_the_block_fails(weights: Path) -> None:
    mapped = MappedFile(weights)
    with pytest.raises(ValueError, match="255"):
        read_and_fail(mapped)
    assert resident(weights) == 0
