"""Several pictures in one pass are judged as each one alone, and one that fails harms no other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from forgemap.detector import Detector
from forgemap.preprocess import Preprocess
from forgemap.serve import worker
from tests.conftest import picture
from tests.test_serve_api import png


class Fixed(nn.Module):
    """A network of fixed input size that counts its passes."""

    native = False

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = Preprocess(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
        self.layer = nn.Conv2d(3, 1, 3, padding=1)
        self.sizes: list[int] = []

    def forward(self, images):
        self.sizes.append(len(images))
        return self.layer(images), None


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(Fixed().eval())


def items(count: int) -> list[dict]:
    return [
        {"name": f"{i}.png", "threshold": None, "outputs": ["mask"], "row": False}
        for i in range(count)
    ]


def test_a_batch_is_judged_as_each_picture_alone(detector):
    pictures = [picture(40, 60, 1), picture(96, 32, 2), picture(33, 33, 3)]
    together = list(detector.predict_many(pictures))
    assert detector.model.sizes == [3]
    for pixels, prediction in zip(pictures, together, strict=True):
        alone = detector.predict(pixels)
        assert prediction.heat.shape == pixels.shape[:2]
        np.testing.assert_allclose(prediction.heat, alone.heat, atol=1e-5)


def test_a_worker_passes_a_batch_at_once_and_a_bad_picture_alone_is_refused(detector):
    bodies = [png(1), b"no picture", png(2)]
    answers = {i: said for i, said, _ in worker._judge(detector, items(3), bodies, 10**6)}
    assert detector.model.sizes == [2] and set(answers) == {0, 1, 2}
    assert answers[1] == {"error": answers[1]["error"]} and "1.png" in answers[1]["error"]
    assert answers[0]["report"]["path"] == "0.png" and answers[2]["report"]["path"] == "2.png"


def test_a_batch_holds_no_more_pixels_than_one_picture_may_have(detector):
    bodies = [png(i, 100, 100) for i in range(5)]
    answers = [i for i, _, _ in worker._judge(detector, items(5), bodies, 25_000)]
    assert answers == [0, 1, 2, 3, 4] and detector.model.sizes == [2, 2, 1]


def test_after_a_failed_pass_each_picture_is_tried_alone(detector, capsys):
    forward = detector.model.forward

    def picky(images):
        if len(images) > 1 or len(detector.model.sizes) == 1:
            raise MemoryError
        return forward(images)

    detector.model.forward = picky
    bodies = [png(1), png(0), png(2)]
    answers = {i: said for i, said, _ in worker._judge(detector, items(3), bodies, 10**6)}
    assert "report" in answers[0]
    assert answers[1] == answers[2] == {"fault": "MemoryError"}
    assert '"event": "fault in a worker"' in capsys.readouterr().err
