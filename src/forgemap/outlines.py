"""outlines.py: the border of a region as a polygon, and its box."""

from __future__ import annotations

import cv2
import numpy as np

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels; x1 and y1 are just outside."""


def outline(mask: np.ndarray) -> tuple[Box, list[list[int]]]:
    """Box of a region, and the outer border of its largest part: [[x, y], ...], simplified, at
    least three points.

    Args:
        mask: (H, W) uint8, anything but 0 inside; not empty.
    """
    borders, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    border = max(borders, key=cv2.contourArea)
    x, y, width, height = (int(n) for n in cv2.boundingRect(border))
    # A four-hundredth of the way round keeps any shape, in about fifty points; never below a pixel.
    points = cv2.approxPolyDP(border, max(1.0, 0.0025 * cv2.arcLength(border, True)), True)[:, 0]
    if len(points) < 3:  # a line of pixels has no border to follow: its box
        right, bottom = x + width - 1, y + height - 1
        points = np.array([[x, y], [right, y], [right, bottom], [x, bottom]])
    return (x, y, x + width, y + height), [[int(px), int(py)] for px, py in points]
