"""files.py: whole or not at all, and nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forgemap.files import whole, write_whole


def test_the_file_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with whole(path, sync=True) as beside:
        beside.write_text("new")
        assert not path.exists() and beside.parent == tmp_path
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_after_an_error_the_earlier_file_is_untouched(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "old")

    def fails() -> None:
        with whole(path) as beside:
            beside.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fails()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_text_is_utf8_and_bytes_are_bytes(tmp_path: Path) -> None:
    write_whole(tmp_path / "text", "ü\n")
    write_whole(tmp_path / "bytes", b"\x00\r\n")
    assert (tmp_path / "text").read_bytes() == b"\xc3\xbc\n"
    assert (tmp_path / "bytes").read_bytes() == b"\x00\r\n"


def test_two_writers_of_one_long_name_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)
    with whole(path) as one, whole(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one" and len(os.listdir(tmp_path)) == 1
