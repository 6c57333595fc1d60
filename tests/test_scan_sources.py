"""scan: what is named becomes the same list of pictures, however it is named."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest

from forgemap.errors import DataError
from forgemap.scan.items import Item, fetch, items_of, max_bytes
from forgemap.scan.listing import UNIT, Unit, read_unit, write_listing
from forgemap.scan.sources import Entry, find

from .scanning import png, write_parquet, write_pictures, write_tar

PIXELS = 1_000_000


def items(*sources: Any, column: str | None = None, start: int = 0) -> list[Item]:
    """All items of the sources, each source's containers opened."""
    found = []
    for number, entry in enumerate(find([str(source) for source in sources], column)):
        found += items_of(Unit(number, (entry,)), start, PIXELS)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "in" / "more", 2)
    write_pictures(tmp_path / "in", 3)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / ".hidden.png").write_bytes(png(0))
    return tmp_path / "in"


def names(found: list[Item], root: Path) -> list[str]:
    return [os.path.relpath(item.path, root) for item in found]


def test_folder_glob_list_and_address_name_the_same_pictures(folder: Path, tmp_path: Path) -> None:
    expected = ["0000.png", "0001.png", "0002.png", "more/0000.png", "more/0001.png"]
    assert names(items(folder), folder) == expected
    assert sorted(names(items(folder / "**" / "*.png"), folder)) == sorted(expected)
    assert names(items(f"file://{folder}"), folder) == expected
    # Relative to the manifest, wherever the command runs.
    (tmp_path / "list.txt").write_text("".join(f"in/{name}\n" for name in expected))
    (tmp_path / "list.csv").write_text("id,path\n" + "".join(f"1,in/{n}\n" for n in expected))
    lines = (json.dumps({"image": f"in/{name}", "mask": None}) for name in expected)
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    for name in ("list.txt", "list.csv", "list.jsonl"):
        assert names(items(tmp_path / name), folder) == expected


def test_nothing_is_named_twice(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("in/0000.png\nin/0000.png\n")
    assert len(items(folder, folder / "*.png", tmp_path / "list.txt")) == 5
    assert len(items(tmp_path / "list.txt")) == 1


def test_tar_members_come_in_order_and_from_any_place_on(tmp_path: Path) -> None:
    members = {f"{n}.jpg": png(n) for n in range(6)}
    tar = write_tar(tmp_path / "a.tar", {**members, "0.json": b"{}", "sub/.x.png": b""})
    found = items(tar)
    assert [(item.key, item.data) for item in found] == list(members.items())
    assert [(item.index, item.key) for item in items(tar, start=4)] == [(4, "4.jpg"), (5, "5.jpg")]
    write_tar(tmp_path / "b.tar", {"x.png": png(9)})
    assert len(items(f"{tmp_path}/{{a,b}}.tar")) == 7


def test_a_tar_that_is_cut_gives_what_it_has_and_a_row_that_says_so(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {f"{n}.png": png(n) for n in range(4)})
    data = tar.read_bytes()
    for size in (len(data) // 2, 3 * 512 + len(png(0)) // 512 * 512):
        tar.write_bytes(data[:size])
        *good, last = items(tar)
        assert all(item.error is None for item in good)
        assert last.key is None and "cut short or damaged" in str(last.error)
    # Exactly between two members tarfile itself says nothing.
    one = write_tar(tmp_path / "one.tar", {"0.png": png(0)}).read_bytes()
    tar.write_bytes(one[: 512 + -(-len(png(0)) // 512) * 512])
    good, last = items(tar)
    assert good.key == "0.png" and "no end mark" in str(last.error)


def test_parquet_columns_of_bytes_paths_and_both(folder: Path, tmp_path: Path) -> None:
    data = [png(n) for n in range(6)]
    table = write_parquet(tmp_path / "a.parquet", {"id": list(range(6)), "image": data})
    assert [(item.key, item.data) for item in items(table)] == [
        (str(n), one) for n, one in enumerate(data)
    ]
    assert [item.key for item in items(table, start=5)] == ["5"]
    write_parquet(tmp_path / "b.parquet", {"where": ["in/0000.png", None]})
    good, bad = items(tmp_path / "b.parquet", column="where")
    assert good.address == str(tmp_path / "in/0000.png")
    assert bad.address is None and "row 1 holds no picture" in str(bad.error)
    hub = [{"bytes": data[0], "path": "x.png"}, {"bytes": None, "path": "in/0001.png"}]
    write_parquet(tmp_path / "c.parquet", {"image": hub})
    first, second = items(tmp_path / "c.parquet")
    assert first.data == data[0] and second.address == str(tmp_path / "in/0001.png")


def test_fsspec_addresses(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    try:
        memory.pipe("/set/b/1.png", png(1))
        memory.pipe("/set/0.png", png(0))
        memory.pipe("/set/notes.md", b"no picture")
        tar = write_tar(tmp_path / "a.tar", {"t.png": png(2)})
        memory.pipe("/set/c.tar", tar.read_bytes())
        found = items("memory://set")
        assert [(i.address and fetch(i, PIXELS)) or i.data for i in found] == [
            *(png(0), png(2), png(1))
        ]
        assert len(items("memory://set/**/*.png")) == 2
        gone = Item(0, "", "memory://set/x.png", address="memory://set/x.png")
        with pytest.raises(Exception, match=r"memory://set/x\.png does not exist"):
            fetch(gone, PIXELS)
    finally:
        memory.rm("/set", recursive=True)


def test_what_cannot_be_used_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,name\n1,x.png\n")
    (tmp_path / "a.jsonl").write_text('{"image": "x.png"}\nno json\n')
    (tmp_path / "a.parquet").write_bytes(b"PAR1 cut")
    write_parquet(tmp_path / "b.parquet", {"image": [png(0)]})
    for source, column, sentence in (
        (tmp_path / "a.csv", None, "no column called image"),
        (tmp_path / "a.jsonl", None, "Line 2 of .* is not JSON"),
        (tmp_path / "a.parquet", None, "a.parquet is cut short or damaged"),
        (tmp_path / "b.parquet", "jpeg", "no column 'jpeg', only image"),
        ("nonsense://bucket/x", None, "cannot be understood"),
        (tmp_path / "none.csv", None, "does not exist"),
    ):
        with pytest.raises(DataError, match=sentence):
            items(source, column=column)
    # A mistake in one of several is a row.
    assert [item.error is None for item in items(folder / "0000.png", folder / "*.gif")] == [
        *(True, False)
    ]


def test_a_listing_gives_back_its_units(tmp_path: Path) -> None:
    files = [Entry("file", "s", os.fsdecode(b"a/\xff%d.png" % n)) for n in range(UNIT + 5)]
    tar = Entry("tar", "s", "b.tar", 10, None, None)
    problem = Entry("problem", "s", "c", error="c is gone")
    facts = write_listing(tmp_path / "l", [*files, tar, problem])
    assert (facts.units, facts.pictures, facts.problems) == (4, UNIT + 5, 1)
    assert (facts.tars, facts.tar_bytes) == (1, 10)
    units = [read_unit(tmp_path / "l", number) for number in range(facts.units)]
    assert [entry for unit in units for entry in unit.entries] == [*files, tar, problem]
    assert [len(unit.entries) for unit in units] == [UNIT, 5, 1, 1]
    again = write_listing(tmp_path / "again", [*files, tar, problem])
    other = write_listing(tmp_path / "other", [*files[1:], tar, problem])
    assert again == facts and other.fingerprint != facts.fingerprint


def test_a_member_that_no_picture_can_need_is_not_read(tmp_path: Path) -> None:
    pixels = 1
    tar = write_tar(tmp_path / "a.tar", {"big.png": bytes(max_bytes(pixels) + 1), "b.png": png(1)})
    (entry,) = find([str(tar)])
    big, good = items_of(Unit(0, (entry,)), 0, pixels)
    assert big.data is None and "raise the pixel limit" in str(big.error)
    assert good.data == png(1)


class _Bucket(BaseHTTPRequestHandler):
    """As much of S3 as reading a bucket needs: a list, sizes, and ranges of bytes."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        name = unquote(url.path).removeprefix("/bucket").strip("/")
        query = parse_qs(url.query)
        if url.path.split("/")[1] != "bucket":
            self._say(403, b"<Error><Code>AccessDenied</Code><Message>Denied</Message></Error>")
        elif "list-type" in query:
            prefix = query.get("prefix", [""])[0]
            keys = [key for key in sorted(self.objects) if key.startswith(prefix)]
            rows = "".join(
                f"<Contents><Key>{key}</Key><Size>{len(self.objects[key])}</Size>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for key in keys
            )
            body = f"<ListBucketResult><Name>bucket</Name><KeyCount>{len(keys)}</KeyCount>{rows}"
            self._say(200, f"{body}<IsTruncated>false</IsTruncated></ListBucketResult>".encode())
        elif name in self.objects or not name:
            self._say(200, self.objects.get(name, b""))
        else:
            self._say(404, b"<Error><Code>NoSuchKey</Code><Message>None</Message></Error>")

    def _say(self, status: int, body: bytes) -> None:
        wanted = self.headers.get("Range")
        size = len(body)
        if wanted and status == 200:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = min(int(last or size - 1), size - 1)
            body, status = body[int(first) : end + 1], 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{end}/{size}")
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("ETag", '"x"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_s3_with_pyarrow_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("s3fs") is not None:
        pytest.skip("s3fs is installed and takes precedence")
    tar = write_tar(tmp_path / "a.tar", {"t.png": png(2)}).read_bytes()
    _Bucket.objects = {"set/0.png": png(0), "set/b/1.png": png(1), "set/c.tar": tar, "set/x": b""}
    _Bucket.objects["set/a.csv"] = b"id,path\n1,0.png\n2,s3://bucket/set/b/1.png\n"
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    try:
        found = items("s3://bucket/set")
        assert {i.path for i in found} == {
            f"s3://bucket/set/{n}" for n in ("0.png", "b/1.png", "c.tar")
        }
        data = {(i.address and fetch(i, PIXELS)) or i.data for i in found}
        assert data == {png(0), png(1), png(2)}
        listed = items("s3://bucket/set/a.csv")
        assert [fetch(item, PIXELS) for item in listed] == [png(0), png(1)]
        with pytest.raises(DataError, match=r"s3://closed/set cannot be read .*your access to it"):
            items("s3://closed/set")
    finally:
        server.shutdown()
        server.server_close()
