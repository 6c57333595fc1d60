"""The page at /, in a real browser against a real server: what an analyst does with it."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from forgemap import drawing

from .conftest import picture, tiny_model
from .serving import PATIENCE, running, until

PAGE = Path(__file__).parent.parent / "src" / "forgemap" / "serve" / "page"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

browser_test = pytest.mark.browser
MS = 1000 * PATIENCE


def test_the_page_has_the_colours_of_the_report() -> None:
    source = (PAGE / "heat.js").read_text()
    listed = re.search(r"COLOURS = \[(.*?)\];", source, re.DOTALL)
    assert listed is not None
    colours = [[int(n) for n in c.split(",")] for c in re.findall(r"\[([\d, ]+)\]", listed[1])]
    assert colours == drawing.HEAT_COLOURS[::17, :3].tolist()


def test_the_page_names_nothing_outside_itself() -> None:
    own = [p for p in PAGE.rglob("*") if p.is_file() and "vendor" not in p.parts]
    for path in own:
        text = path.read_text()
        found = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not found, path
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", page)
    for link in re.findall(r'(?:src|href)="([^"#]+)', page):
        assert (PAGE / link).is_file(), link


def test_what_is_vendored_comes_with_its_licence() -> None:
    for folder in (PAGE / "vendor").iterdir():
        assert (folder / "LICENSE.txt").is_file(), folder


# ---------------------------------------------------------------------------- in a real browser


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    sync_api.expect.set_options(timeout=MS)
    with sync_api.sync_playwright() as driver:
        instance = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--headless", "--disable-gpu"],
            timeout=MS,
        )
        yield instance
        instance.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    with running(tmp_path_factory.mktemp("server"), "--deadline", PATIENCE) as process:
        yield process


@pytest.fixture(scope="module")
def edited(tmp_path_factory) -> Path:
    """A photograph from scikit-image with a hole that OpenCV filled."""
    import cv2

    data = pytest.importorskip("skimage.data", reason="scikit-image brings the photograph")
    photo = data.chelsea()
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[30:110, 20:190] = 255
    path = tmp_path_factory.mktemp("pictures") / "chelsea & friends.png"
    PILImage.fromarray(cv2.inpaint(photo, mask, 5, cv2.INPAINT_TELEA)).save(path)
    return path


@pytest.fixture
def page(browser, server):
    with_errors = []
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    context.add_init_script(path=Path(__file__).parent / "axe" / "axe.min.js")
    page = context.new_page()
    page.set_default_timeout(MS)
    outside = []
    page.on("pageerror", lambda error: with_errors.append(str(error)))
    page.on("console", lambda m: m.type == "error" and with_errors.append(m.text))
    page.on("request", lambda r: r.url.startswith(("http:", "https:"))
            and not r.url.startswith(server.address) and outside.append(r.url))  # fmt: skip
    page.goto(server.address)
    page.expected_errors = []
    yield page
    context.close()
    assert outside == []
    unexpected = [e for e in with_errors if not any(x in e for x in page.expected_errors)]
    assert unexpected == []


def drop(page, *paths: Path) -> None:
    """Files dropped on the page, as a file manager does it."""
    files = [[p.name, base64.b64encode(p.read_bytes()).decode()] for p in paths]
    transfer = page.evaluate_handle(
        """(files) => {
          const transfer = new DataTransfer();
          for (const [name, text] of files) {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], name));
          }
          return transfer;
        }""",
        files,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def judged(page) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#headline")).not_to_be_empty()
    page.wait_for_selector("#viewer .openseadragon-canvas")
    expect(page.locator("#export-note")).not_to_be_empty()


def map_pixels(page) -> int:
    """How many pixels of the layer over the picture show anything."""
    return page.evaluate(
        """() => {
          const canvas = document.querySelector("#canvas-right canvas.layer");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let shown = 0;
          for (let i = 3; i < data.length; i += 4) shown += data[i] > 0;
          return shown;
        }"""
    )


def is_whole(page) -> bool:
    """Does the picture lie within its stage, and reach two of its borders?"""
    picture, stage = (
        page.locator(f"#canvas-right {what}").bounding_box()
        for what in ("canvas.layer", ".openseadragon-canvas")
    )
    spare = [stage[side] - picture[side] for side in ("width", "height")]
    return min(spare) > -2 and min(map(abs, spare)) < 3


def saved(page, button: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.click(button)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


@browser_test
def test_a_dropped_photograph_is_judged_shown_and_exported(page, edited, tmp_path) -> None:
    from playwright.sync_api import expect

    import forgemap

    report = forgemap.analyze(edited)
    drop(page, edited)
    judged(page)
    assert page.inner_text("#name") == "chelsea & friends.png"
    assert page.inner_text("#score") == f"{report.score:.3f}"
    assert page.inner_text("#reason") == report.reason
    assert "untouched photos" in page.inner_text("#meaning")
    assert report.model in page.inner_text("#facts")
    assert report.sha256 in page.inner_text("#facts")
    assert page.locator("#blind li").count() >= 3
    assert page.locator("#regions button").count() == len(report.regions) >= 1
    headline = {"inconclusive": "No clear answer"}.get(report.verdict, "editing")
    assert headline in page.inner_text("#live") or report.verdict in page.inner_text("#live")

    # The threshold redraws the marked area and the regions at once, without the server.
    requests = []
    page.on("request", lambda r: r.url.startswith("http") and requests.append(r.url))
    page.click("[data-layer=mask]")
    for percent in (20, 50, 80):
        page.locator("#threshold").fill(str(percent))
        truth = np.count_nonzero(np.rint(report.heat * 255) >= percent / 100 * 255)
        until(lambda n=truth: abs(map_pixels(page) - n) <= 0.002 * report.heat.size)
    from forgemap.report import find_regions

    expected = find_regions(report.heat, 0.8)
    rows = page.locator("#regions button")
    expect(rows).to_have_count(len(expected))
    expect(rows.first).to_contain_text(f"{expected[0].score:.2f}")
    assert requests == []

    # What is exported then has that threshold, from the same code as the command.
    mask = np.asarray(PILImage.open(saved(page, "[data-export=mask]", tmp_path)))
    assert mask.shape == report.heat.shape
    assert np.array_equal(mask > 0, report.heat >= np.float32(0.8))
    page.click("#threshold-reset")
    (said,) = json.loads(saved(page, "[data-export=json]", tmp_path).read_text())
    described = json.loads(json.dumps(report.to_dict()))
    for name in ("verdict", "score", "regions", "sha256", "model", "reason", "metadata"):
        assert said[name] == described[name], name
    overlay = PILImage.open(saved(page, "[data-export=overlay]", tmp_path))
    assert overlay.size == (report.width, report.height)

    # The report opens on its own and says the same.
    path = saved(page, "[data-export=report]", tmp_path)
    opened = page.context.new_page()
    opened.goto(path.as_uri())
    text = opened.inner_text("body")
    for words in (report.sha256, report.model, report.verdict, f"{report.score:.3f}"):
        assert words in text
    assert opened.locator("image").first.bounding_box()["width"] > 100


@browser_test
def test_the_picture_is_compared_zoomed_and_steered_by_keys(page, edited) -> None:
    drop(page, edited)
    judged(page)
    stages = page.locator("#stages figure:visible")
    assert stages.count() == 1
    until(lambda: is_whole(page))
    page.click("[data-compare=side]")
    page.wait_for_selector("#canvas-left .openseadragon-canvas")
    assert stages.count() == 2
    until(lambda: is_whole(page))
    page.click("[data-compare=blink]")
    opacity = "document.querySelector('#canvas-right canvas.layer').style.opacity"
    for shown in ("0", "0.8", "0"):
        page.wait_for_function(f"() => {opacity} === '{shown}'")
    page.click("[data-compare=overlay]")
    until(lambda: is_whole(page))
    page.locator("#opacity").fill("30")
    assert page.evaluate(opacity) == "0.3"

    canvas = page.locator("#canvas-right .openseadragon-canvas")
    width = (
        "() => document.querySelector('#canvas-right canvas.layer').getBoundingClientRect().width"
    )
    before = page.evaluate(width)
    canvas.focus()
    page.keyboard.press("+")
    page.wait_for_function(f"(before) => ({width})() > before", arg=before)
    page.keyboard.press("o")
    assert not page.locator("#outlines").is_checked()
    page.keyboard.press("h")
    assert page.get_attribute("[data-layer=mask]", "aria-pressed") == "true"
    page.keyboard.press("]")
    assert page.inner_text("#threshold-value") == "0.52"
    page.locator("#regions button").first.click()
    assert page.locator("path.chosen").count() >= 1


@browser_test
def test_many_pictures_are_one_job_and_a_wrong_file_is_told_in_words(
    page, edited, tmp_path
) -> None:
    from playwright.sync_api import expect

    other, text, large = tmp_path / "b.jpg", tmp_path / "notes.txt", tmp_path / "film.bin"
    PILImage.fromarray(picture(300, 200)).save(other)
    text.write_text("no picture at all")
    page.set_input_files("#files", [edited, other, text])
    page.wait_for_selector("#batch:not([hidden])")
    expect(page.locator("#list li")).to_have_count(3)
    expect(page.locator("#list li").nth(2)).to_contain_text("not readable")
    page.locator("#list button").nth(2).click()
    assert "notes.txt is not a picture" in page.inner_text("#reason")
    assert page.locator("#list li").nth(2).locator("img").count() == 0  # no broken thumbnail
    assert page.locator("#viewer").is_hidden()
    page.locator("#list button").nth(1).click()
    judged(page)
    said = json.loads(saved(page, "#batch-json", tmp_path).read_text())
    assert [r["path"] for r in said] == ["chelsea & friends.png", "b.jpg"]
    html = saved(page, "#batch-report", tmp_path).read_text()
    assert "2 pictures" in html
    assert large.name not in html


@browser_test
def test_a_score_means_how_many_untouched_photos_reach_it(page) -> None:
    meaning = """async (score) => (await import("./words.js")).meaning({ score, decision: {
      clear_below: 0.6, manipulated_at: 0.9, calibrated_on: "100 pictures",
      untouched: Array.from({ length: 101 }, (_, i) => 0.9 * i / 100) } })"""
    assert "about 50 would score this high" in page.evaluate(meaning, 0.451)
    assert "fewer than 1 would score this high" in page.evaluate(meaning, 0.95)


@browser_test
def test_a_huge_file_is_refused_before_it_is_sent(page, tmp_path) -> None:
    huge = tmp_path / "huge.png"
    with open(huge, "wb") as file:
        file.truncate(70 * 2**20)
    page.set_input_files("#files", huge)
    page.wait_for_selector("#verdict.unreadable")
    assert "73 MB; this server takes 67 MB" in page.inner_text("#reason")


@browser_test
def test_a_dead_server_is_explained(browser, tmp_path, edited) -> None:
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    with running(tmp_path / "server") as process:
        page = browser.new_page()
        page.set_default_timeout(MS)
        page.goto(process.address)
        page.wait_for_selector("#limits:not(:empty)")
    page.set_input_files("#files", edited)
    page.wait_for_selector("#trouble:not([hidden])")
    assert "The server does not answer" in page.inner_text("#trouble")
    assert "does not answer" in page.inner_text("#reason")
    with running(tmp_path / "again", "--port", process.port):  # the last --port counts
        page.click("#again")
        judged(page)
        assert page.locator("#trouble").is_hidden() and page.locator("#again").is_hidden()
    page.close()


@browser_test
def test_a_server_with_a_token_asks_for_it(browser, tmp_path, edited) -> None:
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    secret = tmp_path / "token"
    secret.write_text("correct-horse-battery\n")
    with running(tmp_path / "server", "--token-file", secret) as process:
        page = browser.new_page()
        page.set_default_timeout(MS)
        page.goto(process.address)
        page.wait_for_selector("#login[open]")
        page.fill("#token", "wrong-wrong-wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#login-title:has-text('not the one')")
        page.fill("#token", "correct-horse-battery")
        page.keyboard.press("Enter")
        page.wait_for_selector("#limits:not(:empty)")
        drop(page, edited)
        judged(page)
        page.close()


@browser_test
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_serious(page, edited, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 844})
    page.wait_for_selector("#limits:not(:empty)")
    assert serious(page) == []
    drop(page, edited)
    judged(page)
    page.locator("#threshold").fill("30")
    page.click("[data-compare=side]")
    assert serious(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    page.click("#about-open")
    assert serious(page) == []


def serious(page) -> list[str]:
    found = page.evaluate("() => axe.run(document)")
    return [
        f"{v['id']}: {v['nodes'][0]['html']}"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]


@browser_test
def test_fog_covers_what_the_model_cannot_tell(browser, tmp_path) -> None:
    pytest.importorskip("sklearn", reason="the extra evaluate is not installed")
    from playwright.sync_api import expect

    from .photographs import honest_model, photograph

    # Without colours: of these random weights, which are surer of grain than of white.
    tiny = tiny_model(tmp_path / "tiny", colours=False)
    model = honest_model(tiny, tmp_path / "honest", verdict="clear")
    pixels = photograph(7, 128, 160)
    pixels[:, 80:] = 255
    PILImage.fromarray(pixels).save(tmp_path / "half.png")
    arguments = ("--model", model, "--detector", "none", "--deadline", PATIENCE)
    with running(tmp_path / "server", *arguments) as server:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.set_default_timeout(MS)
        page.goto(server.address)
        drop(page, tmp_path / "half.png")
        judged(page)
        page.click("[data-layer=confidence]")
        expect(page.locator("#fog-key")).to_be_visible()
        expect(page.locator("#heat-key")).to_be_hidden()
        fog = """() => {
          const canvas = document.querySelector("#canvas-right canvas.layer");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const column = (x) => [0, 1, 2, 3].map((c) => data[4 * (64 * canvas.width + x) + c]);
          return [column(canvas.width - 10), column(20)];
        }"""
        page.wait_for_function(f"() => ({fog})()[0][3] > 200")
        white, grain = page.evaluate(fog)
        assert np.abs(np.array(white[:3]) - drawing.FOG_COLOUR).max() <= 2
        assert grain[3] < white[3]
        page.locator("#canvas-right .openseadragon-canvas").focus()
        page.keyboard.press("h")
        assert page.get_attribute("[data-layer=none]", "aria-pressed") == "true"
        context.close()
