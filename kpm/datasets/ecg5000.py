"""ECG5000: 5000 heartbeats of 140 samples, of one patient, normal ones and four kinds of others.

Each beat is stretched to 140 samples and has mean 0 and standard deviation 1 (Chen et al., UCR archive).
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import torch

from kpm.datasets.signals import Signals
from kpm.errors import UserError, pick

FILES = ("ECG5000_TRAIN.txt", "ECG5000_TEST.txt")
SAMPLES = 140
CLASS_NAMES = ("normal", "R-on-T", "premature ventricular", "supraventricular", "unclassified")
SPLITS = (
    "train",
    "validation",
    "test",
    "paper-train",
    "paper-validation",
    "paper-test",
    "paper-anomalies",
    "all",
)
SEED = 1234  # of the published code
_HELD_OUT, _TESTED = 0.15, 0.33


def parse(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read one of the published text files: values float32 ``(n, 140)`` and classes from 0, int64 ``(n,)``.

    Raises
    ------
    UserError
        If the file is not of the published layout.
    """
    try:
        table = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a table of numbers: {error}") from error
    if table.shape[1:] != (1 + SAMPLES,) or not len(table):
        raise UserError(f"{path}: expected rows of a class and {SAMPLES} samples, found shape {table.shape}")
    labels = table[:, 0].astype(np.int64) - 1
    if not (np.isfinite(table).all() and (labels + 1 == table[:, 0]).all() and set(labels) <= set(range(5))):
        raise UserError(f"{path}: expected finite samples and classes 1 to 5")
    return table[:, 1:].astype(np.float32), labels


def split_rows(labels: np.ndarray, split: str) -> np.ndarray:
    """Which rows make up a split, given the class of each row, 0 for normal.

    The published code shuffles all beats, takes 15 % of the normal ones away from training and a third of those for the
    test: ``paper-train``, ``paper-validation`` and ``paper-test`` are normal beats only (2481, 293, 145), and
    ``paper-anomalies`` all others (2081), in its order ([KANN] sec. 4.2; its code's seed 1234). There, no anomaly is
    left to choose a threshold by. ``train`` is ``paper-train``; ``validation`` and ``test`` are the paper's with every
    other anomaly of each class, so that a threshold chosen on one can be judged on the other. ``all`` is every row in
    order. The published code reads the same rows from other files (ARFF), here taken to be in the same order.

    Parameters
    ----------
    labels : int array ``(n,)``
    split : str
    """
    # The legacy stream: pandas' `sample` and scikit-learn's `train_test_split` draw these permutations from it.
    shuffled = np.random.RandomState(SEED).permutation(len(labels))
    normal, anomalies = shuffled[labels[shuffled] == 0], shuffled[labels[shuffled] != 0]
    held_out, train = _divided(normal, _HELD_OUT)
    test, validation = _divided(held_out, _TESTED)
    by_class = anomalies[np.argsort(labels[anomalies], kind="stable")]
    parts = {
        "train": train,
        "validation": np.concatenate([validation, by_class[::2]]),
        "test": np.concatenate([test, by_class[1::2]]),
        "paper-train": train,
        "paper-validation": validation,
        "paper-test": test,
        "paper-anomalies": anomalies,
        "all": np.arange(len(labels)),
    }
    return parts[pick("split", split, parts)]


def _divided(rows: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.RandomState(SEED).permutation(len(rows))
    cut = math.ceil(share * len(rows))
    return rows[order[:cut]], rows[order[cut:]]


def dataset(
    values: np.ndarray,
    labels: np.ndarray,
    split: str,
    name: str,
    source: str,
    class_names: tuple[str, ...],
    description: str,
) -> Signals:
    """The beats of a split, wherever they come from: values ``(n, 140)``, classes ``(n,)``."""
    rows = split_rows(labels, split)
    return Signals(
        values=torch.from_numpy(values[rows]).unsqueeze(-1),
        labels=torch.from_numpy(labels[rows]),
        name=name,
        source=source,
        split=split,
        class_names=class_names,
        description=description,
    )


@functools.lru_cache(maxsize=2)
def _table(folder: Path, mark: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    values, labels = zip(*(parse(folder / name) for name in FILES))
    return np.concatenate(values), np.concatenate(labels)


def load(split: str = "train", root: Path | None = None) -> Signals:
    """ECG5000 from the published files, training rows before test rows; see `split_rows` for the splits."""
    from kpm.datasets import registry

    pick("split", split, SPLITS)
    folder = registry.fetch("ecg5000", root)
    values, labels = _table(folder, tuple((folder / name).stat().st_mtime_ns for name in FILES))
    text = "heartbeats of one patient, each stretched to 140 samples and standardised"
    return dataset(values, labels, split, "ecg5000", "real", CLASS_NAMES, text)
