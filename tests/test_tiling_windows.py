"""Windows: a fixed-size model looks closer; what the grid of windows is must not matter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from torch import nn

from forgemap.detector import Detector, Prediction
from forgemap.errors import ForgemapError, ModelError
from forgemap.image import load_image
from forgemap.models.build import build
from forgemap.models.checkpoint import save_model
from forgemap.models.output import LocalizerOutput
from forgemap.preprocess import Preprocess
from forgemap.scoring import Decision
from forgemap.tiling import localize
from forgemap.windows import RULES, Windows, look_closer

from .conftest import picture

SIZE = 128


class NoiseNet(nn.Module):
    """Of a fixed input size: finds noise between neighbouring pixels; sees 3 of them around."""

    native = False
    preprocess = Preprocess(size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    def __init__(self, evidence: bool = False) -> None:
        super().__init__()
        self.evidence = evidence
        self.largest = 0

    def forward(self, images: torch.Tensor) -> LocalizerOutput:
        assert images.shape[1:] == (3, SIZE, SIZE)
        self.largest = max(self.largest, len(images))
        mask = self.logits(images)
        return LocalizerOutput(mask, mask.amax((2, 3), keepdim=True) if self.evidence else None)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        luma = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        fine = luma[..., 1:-1, 1:-1] - F.avg_pool2d(luma, 3, 1)
        energy = F.avg_pool2d(fine.square(), 5, 1, 2, count_include_pad=False)
        return 8 * torch.tanh(300 * (energy - 0.005))


def edited(height: int, width: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture, (H, W, 3), with a square of strong noise somewhere, and that square's mask."""
    random = np.random.default_rng(seed)
    pixels = picture(height, width, seed).clip(70, 185)
    top, left = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    noise = random.normal(0, 35, (height, width, 1)).clip(-70, 70) * mask[..., None]
    return (pixels + noise).astype(np.uint8), mask


def detector(windows: Windows | None, evidence: bool = False) -> Detector:
    """Judges by the square of 64 x 64 pixels that is marked most."""
    return Detector(NoiseNet(evidence), Decision(("logit_peak64",), (1.0,)), windows=windows)


# --- the grid does not matter ---------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(0, 0), (17, 5), (95, 43)])
def test_windows_equal_the_whole_picture_at_its_own_resolution(shift):
    """For a convolutional network that sees no farther than the margin; but at the borders."""
    pixels, _ = edited(310, 400, 90, seed=1)
    network = NoiseNet()
    luma = Preprocess(size=None, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))(pixels)
    expected = network.logits(luma)[0, 0].numpy()
    fused = look_closer(network, pixels, Windows("mean", (1,)), shift=shift).mask
    found = 2 * fused - localize(network, pixels).mask  # the mean of both, less one of them
    inner = np.s_[8:-8, 8:-8]
    assert np.abs(found[inner] - expected[inner]).max() < 1e-3


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shift=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    windows=st.sampled_from([Windows(rule, scales) for rule in RULES for scales in ((1,), (1, 2))]),
    side=st.sampled_from([0, 90]),
)
def test_shifting_the_grid_does_not_move_the_verdict(seed, shift, windows, side):
    pixels, mask = edited(280, 300, side, seed)
    judge = detector(windows)
    image = load_image(pixels)
    reports = []
    for by in ((0, 0), shift):
        logits = look_closer(judge.model, pixels, windows, shift=by)
        reports.append(judge.judge(image, Prediction(judge.decision.heat(logits.mask), None)))
    verdict = "manipulated" if mask.any() else "no sign of editing"
    assert [report.verdict for report in reports] == [verdict, verdict]
    assert reports[0].score == pytest.approx(reports[1].score, abs=0.02)


@settings(max_examples=200, deadline=None)
@given(
    length=st.integers(1, 5000),
    side=st.integers(32, 900),
    overlap=st.floats(0.1, 0.75),
    shift=st.integers(0, 2000),
)
def test_windows_cover_everything_lie_within_and_overlap(length, side, overlap, shift):
    starts = Windows(overlap=overlap).starts(length, side, shift)
    assert starts[0] == 0
    assert starts[-1] + side == max(length, side)
    gaps = np.diff(starts)
    assert (gaps > 0).all() and (gaps <= side - round(overlap * side)).all()


# --- what the rules mean --------------------------------------------------------------------------


def test_an_edit_that_shrinking_wipes_out_is_found_through_windows():
    """40 pixels of 1,400: the whole-picture pass has 4 of them."""
    pixels, mask = edited(1000, 1400, 40, seed=3)
    contrast = {}
    for windows in (None, Windows("mean", (1,)), Windows("max", (1, 2))):
        heat = detector(windows).predict(pixels).heat
        contrast[str(windows)] = heat[mask].mean() - heat[~mask].mean()
    assert contrast["None"] < 0.1
    assert min(contrast["mean:1"], contrast["max:1,2"]) > 0.4


def test_the_rules_are_the_mean_and_the_highest_of_all_passes():
    random = np.random.default_rng(0)
    passes = random.normal(size=(4, 5, 6)).astype(np.float32)
    for name, expected in (("mean", passes.mean(0)), ("max", passes.max(0))):
        fused = passes[0].copy()
        for number in (1, 2, 3):
            RULES[name].fuse(fused, passes[number].copy(), number)
        np.testing.assert_allclose(fused, expected, atol=1e-6)


def test_where_no_window_is_smaller_than_the_picture_the_answer_is_the_published_one():
    pixels, _ = edited(100, 128, 30, seed=5)
    assert Windows().count(SIZE, 100, 128) == 0
    assert np.array_equal(
        detector(Windows()).predict(pixels).heat, detector(None).predict(pixels).heat
    )


@pytest.mark.parametrize("size", [(1, 700), (700, 1), (127, 129), (300, 129), (20, 131)])
@pytest.mark.parametrize("rule", RULES)
def test_thin_and_odd_pictures_get_a_map_of_their_size(size, rule):
    heat = detector(Windows(rule)).predict(picture(*size)).heat
    assert heat.shape == size
    assert np.isfinite(heat).all()


def test_windows_go_through_the_network_in_bounded_batches():
    network = NoiseNet()
    windows = Windows("mean", (1,))
    look_closer(network, picture(700, 700), windows)
    assert windows.count(SIZE, 700, 700) == 49
    assert 1 < network.largest <= 8


def test_evidence_of_windows_is_fused_by_the_rule_too():
    pixels, _ = edited(300, 300, 90, seed=2)
    whole = localize(NoiseNet(evidence=True), pixels).evidence
    mean, highest = (
        look_closer(NoiseNet(evidence=True), pixels, Windows(rule, (1,))).evidence
        for rule in ("mean", "max")
    )
    assert whole.shape == mean.shape == highest.shape == (1, 1)
    assert highest > 7.9 > mean > -8
    assert highest >= whole


# --- the front doors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("median", "unknown rule 'median'; valid: mean, max"),
        ("mean:one", "'mean:one' is no rule with scales"),
        ("max:0.5", "numbers from 1 on"),
        ("max:nan", "numbers from 1 on"),
        ("mean:", "'mean:' is no rule with scales"),
    ],
)
def test_what_is_no_choice_of_windows_gets_a_sentence(text, sentence):
    with pytest.raises(ForgemapError, match=sentence):
        Windows.parse(text)


@given(st.sampled_from(sorted(RULES)), st.lists(st.sampled_from([1, 1.5, 2, 8]), min_size=1))
def test_a_choice_of_windows_is_what_it_is_written_as(rule, scales):
    windows = Windows(rule, tuple(map(float, scales)))
    assert Windows.parse(str(windows)) == windows
    assert Windows.parse(rule).scales == Windows().scales


def test_a_model_of_native_resolution_refuses_windows(model_folder):
    with pytest.raises(ModelError, match="looks at every pixel in any case"):
        Detector.load(model_folder, windows="mean")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DeCLIP with a tiny CLIP ViT of random weights."""
    torch.manual_seed(0)
    sizes = {"width": 16, "heads": 2, "layers": 3, "patch": 32, "channels": [4, 4, 3, 2]}
    named = {"architecture": "declip", "backbone": "vit", "layer": "layer1", "decoder": "conv-4"}
    network = build({**named, **sizes})
    return save_model(network, tmp_path_factory.mktemp("models") / "clip")


def test_the_command_looks_through_windows_and_its_report_says_so(clip_folder, tmp_path, capsys):
    from forgemap.cli import app

    photo, out = tmp_path / "photo.png", tmp_path / "out"
    PILImage.fromarray(picture(300, 500)).save(photo)
    arguments = ["analyze", str(photo), "--model", str(clip_folder), "--out", str(out)]
    for extra in ([], ["--windows", "max:1"]):
        with pytest.raises(SystemExit) as end:
            app([*arguments, *extra])
        assert end.value.code in (0, 1)
    page = (out / "report.html").read_text()
    assert "max:1" in page and "not calibrated" in page
    assert json.loads((out / "report.json").read_text())[0]["error"] is None
    with pytest.raises(ForgemapError, match="unknown rule 'sum'"):
        app([*arguments, "--windows", "sum"], standalone_mode=False)


def test_windows_change_what_a_vision_transformer_answers(clip_folder):
    pixels = picture(300, 500)
    plain = Detector.load(clip_folder).predict(pixels).heat
    closer = Detector.load(clip_folder, windows="mean").predict(pixels).heat
    assert plain.shape == closer.shape == (300, 500)
    assert np.abs(plain - closer).max() > 1e-4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("windows", ["mean:4,8", "max:4,8"])
def test_100_megapixels_through_windows_stay_under_3_gb(clip_folder, windows):
    code = rf"""
import re
import numpy as np
from forgemap.detector import Detector
detector = Detector.load({str(clip_folder)!r}, windows={windows!r})
pixels = np.random.default_rng(0).integers(0, 255, (10_000, 10_000, 3), dtype=np.uint8)
report = detector.analyze(pixels)
assert report.heat.shape == (10_000, 10_000)
status = open('/proc/self/status').read()
print(int(re.search(r'VmHWM:\s*(\d+)', status)[1]) / 1e6)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=540, check=False
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout.split()[-1]) < 3  # GB
