"""Small digits: 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn (Alpaydin, Kaynak, UCI 1998)."""

from __future__ import annotations

import functools

import numpy as np
import torch

from kpm.datasets.images import Images
from kpm.errors import pick

SPLITS = ("train", "validation", "test")
SEED, SIZES = 7253, (1100, 200, 497)


@functools.lru_cache(maxsize=1)
def _all() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    found = load_digits()
    images, labels = found.images.astype(np.uint8), found.target.astype(np.int64)
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels)


def load(split: str = "train") -> Images:
    """Digits of 8 x 8 pixels in 17 shades, shuffled once: 1100 to train, 200 to validate, 497 to test.

    They are real, and come with a package that is here in any case: there is nothing to fetch.
    """
    place = SPLITS.index(pick("split", split, SPLITS))
    images, labels = _all()
    order = torch.from_numpy(np.random.RandomState(SEED).permutation(len(labels)))
    rows = order.split(SIZES)[place]
    text = "handwritten digits, 8 x 8 pixels of grey, from scikit-learn"
    return Images(images[rows], labels[rows], "small_digits", "real", split, scale=16.0, description=text)
