"""The 1,797 handwritten digits of E. Alpaydin and C. Kaynak (UCI Machine Learning Repository, CC BY 4.0; see DIGITS.txt), 8 by 8 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nandetect.data.dataset import Data, data, labelled


def load() -> Data:
    """The digits, their pixels stretched from 0..16 to 0..255, which is what raw pixels are elsewhere."""
    with np.load(Path(__file__).with_name("digits.npz")) as stored:
        images, labels = stored["images"], stored["labels"]
    return data("digits", labelled(images.astype(np.float32) * np.float32(255 / 16), labels, "digits"))
