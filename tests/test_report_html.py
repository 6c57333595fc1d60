"""report_html.py: one page that stands alone, escapes everything and needs little memory."""

from __future__ import annotations

import base64
import io
import os
import re
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from forgemap.errors import ForgemapError
from forgemap.report import VERDICTS, Report, write_outputs
from forgemap.report_html import ReportWriter

from .test_report import blobs, report_of, unreadable

HOSTILE = (
    """a"><script>alert('1')</script>&amp;<img src=x onerror=alert(1)>{{ 7*7 }}\u202egpj.exe.jpg"""
)
SETTINGS = {"threshold": 0.5, "device": "cpu"}


class Page(HTMLParser):
    """Elements, texts and attributes of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text("utf-8")
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._hidden = False
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._hidden = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False
        self.text += " " if tag in ("dt", "dd", "td", "th", "p", "li") else ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data

    def pictures(self) -> list[PILImage.Image]:
        data = re.findall(r"data:image/\w+;base64,([^\"]+)", self.source)
        return [PILImage.open(io.BytesIO(base64.b64decode(text))) for text in data]


def pixels(heat: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (*heat.shape, 3), dtype=np.uint8)


def page_of(folder: Path, *reports: Report, **settings: object) -> Page:
    path = folder / "report.html"
    with ReportWriter(path, title="Report & more", settings=SETTINGS | settings) as page:
        for report in reports:
            page.add(report, None if report.heat is None else pixels(report.heat))
    return Page(path)


def test_the_page_says_what_a_newsroom_asks(tmp_path: Path) -> None:
    report = report_of(
        blobs((10, 20, 60, 70)),
        orientation=6,
        reason="The score 0.875 reaches the threshold 0.610.",
        notes=["alpha channel dropped"],
    )
    text = " ".join(page_of(tmp_path, report, unreadable()).text.split())
    for words in (
        *("Report & more", "photo.jpg", "0.875", "120 × 100 pixels", "EXIF orientation 6"),
        *("default@0123456789ab", "0f" * 32, "alpha channel dropped", "reaches the threshold"),
        *("21% of the picture", "10, 20 – 60, 70", "Python 3.", "threshold 0.5", "device cpu"),
        *("not proof that a picture is authentic", "bad.jpg is empty: get a complete copy"),
    ):
        assert words in text, words


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_verdict_is_told_by_word_colour_and_symbol(verdict: str, tmp_path: Path) -> None:
    page = page_of(tmp_path, report_of(blobs(), verdict=verdict))
    badges = re.findall(
        r'class="badge (\w+)"><span aria-hidden="true">(.)</span> ([\w ]+)<', page.source
    )
    looks = {word: (colour, symbol) for colour, symbol, word in badges}
    assert verdict in looks
    others = {"manipulated": ("manipulated", "▲"), "no sign of editing": ("clear", "○")}
    others["inconclusive"] = ("inconclusive", "◆")
    assert looks[verdict] == others[verdict]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    bad = unreadable(HOSTILE)
    report = report_of(
        blobs((5, 5, 50, 50)), path=f"dir/{HOSTILE}", notes=[HOSTILE], reason=HOSTILE
    )
    report.model = HOSTILE
    page = page_of(tmp_path, report, bad, **{HOSTILE: HOSTILE})
    assert "script" not in page.tags
    assert "49" not in page.text.split()
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("<script>alert('1')</script>&amp;") >= 8
    assert page.tags.count("bdi") >= 4  # so that a right-to-left mark does not reach further


def test_names_that_are_no_utf8_are_written_escaped(tmp_path: Path) -> None:
    page = page_of(tmp_path, report_of(blobs(), path=os.fsdecode(b"caf\xe9.jpg")))
    assert "caf\\udce9.jpg" in page.text


def test_the_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    page = page_of(tmp_path, report_of(blobs((10, 20, 60, 70))))
    links = [v for k, v in page.attributes if k in ("src", "href", "srcset", "action", "data")]
    assert links
    assert all(link.startswith(("#", "data:image/")) for link in links)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    style = page.source[: page.source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in style


def test_every_link_inside_the_page_has_its_end(tmp_path: Path) -> None:
    page = page_of(tmp_path, report_of(blobs((10, 20, 60, 70))), unreadable(), report_of(blobs()))
    identities = [value for name, value in page.attributes if name == "id"]
    assert len(identities) == len(set(identities))
    ends = {value[1:] for name, value in page.attributes if name == "href" and value[0] == "#"}
    assert ends <= set(identities)


def test_large_pictures_are_reduced_and_small_ones_are_not(tmp_path: Path) -> None:
    large = report_of(blobs((10, 20, 900, 700), size=(1000, 3200)))
    sizes = {im.size for im in page_of(tmp_path, large).pictures()}
    assert (1600, 500) in sizes
    assert max(max(size) for size in sizes) == 1600
    small = {im.size for im in page_of(tmp_path, report_of(blobs())).pictures()}
    assert (120, 100) in small


def test_the_heat_map_in_the_page_is_clear_where_nothing_was_found(tmp_path: Path) -> None:
    page = page_of(tmp_path, report_of(blobs((60, 20, 110, 80))))
    (heat,) = [np.asarray(im.convert("RGBA")) for im in page.pictures() if im.format == "PNG"]
    assert heat[50, 10, 3] == 0
    assert heat[50, 80, 3] > 100


def test_without_pixels_the_written_overlay_is_shown(tmp_path: Path) -> None:
    heat = blobs((10, 20, 60, 70))
    report = write_outputs(report_of(heat), pixels(heat), tmp_path, "photo")
    report.heat = None
    page = page_of(tmp_path, report)
    assert (120, 100) in {im.size for im in page.pictures()}
    assert "Heat map and outlines" in page.text
    os.remove(report.overlay or "")
    assert page_of(tmp_path, report).pictures() == []


def test_no_page_is_left_after_an_error_and_an_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    not_a_picture = np.zeros((5, 5, 5), np.uint8)
    with pytest.raises(TypeError), ReportWriter(path, title="T", settings={}) as page:
        page.add(report_of(blobs()), not_a_picture)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ForgemapError, match=r"report\.html cannot be written"):
        page_of(tmp_path / "file")


def test_an_empty_page_is_a_page(tmp_path: Path) -> None:
    assert "0 pictures" in page_of(tmp_path).text


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    heat = blobs((10, 10, 90, 90), size=(200, 300))
    picture = pixels(heat)  # noise: about 60 kB as JPEG

    def peak(count: int) -> int:
        tracemalloc.start()
        with ReportWriter(tmp_path / "report.html", title="T", settings={}) as page:
            for _ in range(count):
                page.add(report_of(heat), picture)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(1)  # loads what is loaded once
    few, many = peak(2), peak(12)
    assert (tmp_path / "report.html").stat().st_size > 12 * 60_000
    assert many - few < 10 * 20_000  # a thumbnail and a row each, not the picture
