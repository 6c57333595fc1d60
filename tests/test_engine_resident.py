"""A mapped file's pages can be given back, and nothing but them."""

from __future__ import annotations

import mmap
import re
import sys
from pathlib import Path

import pytest

from forgemap.engines.resident import mappings, release, released

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
    with weights.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        before = mapped[:]
        assert resident(weights) == SIZE
        assert release(weights) == SIZE
        assert resident(weights) == 0
        assert mapped[:] == before
        with released(weights):
            assert mapped[: SIZE // 2] == before[: SIZE // 2]
        assert resident(weights) == 0


def test_what_was_written_into_memory_is_never_lost(weights: Path) -> None:
    with weights.open("r+b") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
        mapped[:5] = b"hello"
        assert mappings(weights) == [] and release(weights) == 0
        assert mapped[:5] == b"hello"


def read_and_fail(weights: Path, mapped: mmap.mmap) -> None:
    with released(weights):
        raise ValueError(f"the last byte is {mapped[:][-1]}")


def test_pages_are_given_back_when_the_block_fails(weights: Path) -> None:
    with weights.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        with pytest.raises(ValueError, match="255"):
            read_and_fail(weights, mapped)
        assert resident(weights) == 0
