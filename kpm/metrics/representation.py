"""The field's standard disentanglement scores, for comparison with `kpm.metrics.disentanglement`: DCI, MIG and SAP.

They look at a representation matrix ``(n, d)``, one row per sequence (say, latents averaged over time) and one column
per latent, and at integer labels ``{factor: (n,)}``. All three ask for factors that lie along single latents; a model
whose factors lie in subspaces scores low here however well it swaps. None depends on the scale, the offset or (but for
the noise of a fit) the order of the latents. Numpy or torch goes in; the work is done in numpy on the CPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import entr
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

from kpm.solvers import checks

TREES = 50
LEAVES = (0.001, 0.005, 0.025)
"""Smallest leaf of a tree, as a fraction of the training data: what `dci` chooses from."""

Labels = Mapping[str, ArrayLike | Tensor]


@dataclasses.dataclass(frozen=True)
class DCI:
    """Disentanglement, completeness, informativeness (Eastwood and Williams, ICLR 2018); each at best 1.

    Attributes
    ----------
    disentanglement : float
        1 if each latent matters to one factor only, 0 if every latent matters to all alike.
    completeness : float
        1 if each factor depends on one latent only, 0 if it depends on all alike.
    informativeness_train, informativeness_test : float
        Accuracy of the factors predicted from all latents, mean over factors. Chance is not 0 but one over the classes.
    importance : ndarray
        ``(d, f)``: share of each latent in predicting each factor; columns sum to 1, or to 0 where nothing helped.
    factors : tuple of str
        Names of the columns of `importance`.
    """

    disentanglement: float
    completeness: float
    informativeness_train: float
    informativeness_test: float
    importance: np.ndarray
    factors: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class MIG:
    """Mutual information gap (Chen et al., NeurIPS 2018).

    Attributes
    ----------
    score : float
        Mean over factors; 1 if each factor is fully known from one latent and unknown to the others.
    per_factor : dict of str to float
        Gap between the two most informative latents, divided by the entropy of the factor.
    mutual_information : ndarray
        ``(d, f)``, in nats.
    """

    score: float
    per_factor: dict[str, float]
    mutual_information: np.ndarray


@dataclasses.dataclass(frozen=True)
class SAP:
    """Separated attribute predictability (Kumar et al., ICLR 2018).

    Attributes
    ----------
    score : float
        Mean over factors of the gap between the two most predictive latents. As published it cannot reach 1, because
        a useless latent predicts at chance level: 5/6 is the most for six classes.
    score_adjusted : float
        The same with every gap divided by ``1 - chance``, so that 1 is the most.
    per_factor : dict of str to float
        Gap of each factor, not adjusted.
    accuracy : ndarray
        ``(d, f)``: balanced accuracy on the test data of each factor from each latent alone.
    """

    score: float
    score_adjusted: float
    per_factor: dict[str, float]
    accuracy: np.ndarray


def dci(
    train_z: ArrayLike | Tensor, train_factors: Labels, test_z: ArrayLike | Tensor, test_factors: Labels, seed: int = 0
) -> DCI:
    """DCI with random forests, one per factor.

    Importances are the forests' mean decrease of impurity. Deep trees also split on noise, which spreads importance
    over latents that have none; so the size of the leaves is chosen from `LEAVES` by out-of-bag accuracy, separately
    for each factor (the largest among equals).

    Parameters
    ----------
    train_z, test_z : array or Tensor
        ``(n, d)`` and ``(m, d)``, ``d >= 2``.
    train_factors, test_factors : mapping of str to array or Tensor
        Integer labels ``(n,)`` and ``(m,)`` of the same factors, two or more.
    seed : int
        Of the forests: the same seed gives the same scores.

    Raises
    ------
    ValueError
        For shapes that do not fit, a number that is not finite (its index is named), a factor with one class only
        (its name is given), fewer than two latents or factors.
    """
    train, test, learn, check = _two_sets(train_z, train_factors, test_z, test_factors)
    if len(learn) < 2:
        raise ValueError(f"train_factors: disentanglement needs at least 2 factors, got {sorted(learn)}")
    forests = {name: _forest(train, labels, seed) for name, labels in learn.items()}
    importance = np.stack([forest.feature_importances_ for forest in forests.values()], axis=1)
    return DCI(
        disentanglement=disentanglement(importance),
        completeness=completeness(importance),
        informativeness_train=float(np.mean([forests[name].score(train, learn[name]) for name in learn])),
        informativeness_test=float(np.mean([forests[name].score(test, check[name]) for name in learn])),
        importance=importance,
        factors=tuple(learn),
    )


def disentanglement(importance: np.ndarray) -> float:
    """How far each latent serves one factor (Eastwood and Williams 2018, sec. 2).

    ``D_i = 1 - H(P_i) / log f`` with ``P_ij = R_ij / sum_j R_ij``, averaged over latents with the weights
    ``sum_j R_ij / sum_ij R_ij``: a latent of no importance does not count. 0 if nothing has any importance.

    Parameters
    ----------
    importance : ndarray
        R, ``(d, f)``, not negative, ``f >= 2``.
    """
    importance = np.asarray(importance, dtype=np.float64)
    if importance.ndim != 2 or importance.shape[1] < 2 or not (importance >= 0).all():
        raise ValueError(f"importance: expected numbers >= 0 in two or more columns, got shape {importance.shape}")
    total = importance.sum(axis=1)
    if not total.any():
        return 0.0
    share = importance[total > 0] / total[total > 0, None]
    focus = 1 - entr(share).sum(axis=1) / np.log(importance.shape[1])
    return float(np.average(focus, weights=total[total > 0]))


def completeness(importance: np.ndarray) -> float:
    """How far each factor depends on one latent: `disentanglement` with the roles of the two exchanged, ``d >= 2``."""
    return disentanglement(np.asarray(importance).T)


def mig(z: ArrayLike | Tensor, factors: Labels, bins: int = 20) -> MIG:
    """Mutual information gap, each latent cut into `bins` bins of equal width over its range.

    With few samples the plug-in estimate of the information is too high by about ``(bins - 1)(classes - 1) / 2n`` nats
    for every latent; in the gap this cancels.

    Parameters
    ----------
    z : array or Tensor
        ``(n, d)``, ``d >= 2``.
    factors : mapping of str to array or Tensor
        Integer labels ``(n,)``.

    Raises
    ------
    ValueError
        As `dci`, or for fewer than 2 bins.
    """
    bins = checks.count(bins, "bins", 2, 2**31)
    z = _matrix(z, "z")
    labels = _labels(factors, len(z), "factors")
    cell = np.minimum((_unit(z, z) * bins).astype(np.int64), bins - 1)
    information = np.stack([_mutual_information(cell, bins, column) for column in labels.values()], axis=1)
    entropy = np.array([entr(np.unique(column, return_counts=True)[1] / len(z)).sum() for column in labels.values()])
    gaps = _gaps(information) / entropy
    return MIG(float(gaps.mean()), dict(zip(labels, gaps.tolist())), information)


def sap(
    train_z: ArrayLike | Tensor, train_factors: Labels, test_z: ArrayLike | Tensor, test_factors: Labels, seed: int = 0
) -> SAP:
    """SAP for categorical factors: thresholds on one latent at a time, one fewer than there are classes.

    The thresholds are those of a decision tree with as many leaves as there are classes and balanced class weights.
    (A linear classifier, the common shortcut, cannot tell the inner classes of an ordered code from the rest.)
    A latent that is constant predicts at chance level; it is not given accuracy 0, which would widen the gap.

    Parameters
    ----------
    train_z, train_factors, test_z, test_factors, seed
        As for `dci`; one factor is enough.

    Raises
    ------
    ValueError
        As `dci`.
    """
    train, test, learn, check = _two_sets(train_z, train_factors, test_z, test_factors)
    accuracy = np.zeros((train.shape[1], len(learn)))
    classes = np.array([len(np.unique(labels)) for labels in learn.values()])
    for j, name in enumerate(learn):
        tree = DecisionTreeClassifier(max_leaf_nodes=int(classes[j]), class_weight="balanced", random_state=seed)
        for i in range(train.shape[1]):
            predicted = tree.fit(train[:, [i]], learn[name]).predict(test[:, [i]])
            accuracy[i, j] = _balanced_accuracy(predicted, check[name])
    gaps = _gaps(accuracy)
    adjusted = gaps / (1 - 1 / classes)
    return SAP(float(gaps.mean()), float(adjusted.mean()), dict(zip(learn, gaps.tolist())), accuracy)


def _forest(z: np.ndarray, labels: np.ndarray, seed: int) -> RandomForestClassifier:
    """The forest whose leaf size does best out of bag. All latents stand for choice at every split."""
    forests = [
        RandomForestClassifier(TREES, max_features=None, min_samples_leaf=leaf, oob_score=True, random_state=seed)
        for leaf in LEAVES
    ]
    return max((forest.fit(z, labels) for forest in reversed(forests)), key=lambda forest: forest.oob_score_)


def _mutual_information(cell: np.ndarray, bins: int, labels: np.ndarray) -> np.ndarray:
    """Plug-in mutual information, nats, of each column of `cell` (bin numbers ``(n, d)``) with the labels: ``(d,)``."""
    n, d = cell.shape
    values, index = np.unique(labels, return_inverse=True)
    flat = (np.arange(d) * bins + cell) * len(values) + index[:, None]
    joint = np.bincount(flat.ravel(), minlength=d * bins * len(values)).reshape(d, bins, len(values)) / n
    entropies = entr(joint.sum(2)).sum(1) + entr(joint.sum(1)).sum(1) - entr(joint).sum((1, 2))
    return np.maximum(entropies, 0)  # rounding can leave a constant latent at -1e-16


def _balanced_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy within each class, averaged over the classes that occur."""
    _, index = np.unique(labels, return_inverse=True)
    return float((np.bincount(index, weights=predicted == labels) / np.bincount(index)).mean())


def _gaps(table: np.ndarray) -> np.ndarray:
    """Largest minus second largest entry of each column."""
    second, first = np.sort(table, axis=0)[-2:]
    return first - second


def _unit(z: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Columns of `z` moved and scaled so that those of `reference` fill [0, 1]; a constant one becomes 0.

    The trees work in float32, in which a small signal on a large offset would be lost.
    """
    low, high = reference.min(axis=0), reference.max(axis=0)
    return np.where(high > low, (z - low) / np.where(high > low, high - low, 1), 0)


def _two_sets(
    train_z: ArrayLike | Tensor, train_factors: Labels, test_z: ArrayLike | Tensor, test_factors: Labels
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Checked training and test data, both scaled by the training data's ranges."""
    train, test = _matrix(train_z, "train_z"), _matrix(test_z, "test_z")
    if train.shape[1] != test.shape[1]:
        raise ValueError(f"test_z: {test.shape[1]} latents, but train_z has {train.shape[1]}")
    learn = _labels(train_factors, len(train), "train_factors")
    check = _labels(test_factors, len(test), "test_factors")
    if learn.keys() != check.keys():
        raise ValueError(f"test_factors: {sorted(check)}, but train_factors has {sorted(learn)}")
    return _unit(train, train), _unit(test, train), learn, check


def _array(x: ArrayLike | Tensor) -> np.ndarray:
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        return (x.double() if x.is_floating_point() else x).numpy()  # numpy has no bfloat16
    return np.asarray(x)


def _matrix(z: ArrayLike | Tensor, name: str) -> np.ndarray:
    z = _array(z)
    if z.ndim != 2 or z.dtype.kind not in "fiub" or not len(z):
        raise ValueError(f"{name}: expected real numbers of shape (n, d), got {z.dtype} of shape {z.shape}")
    if z.shape[1] < 2:
        raise ValueError(f"{name}: at least 2 latents are needed to compare, got shape {z.shape}")
    z = z.astype(np.float64)
    checks.finite(torch.from_numpy(z), name)
    return z


def _labels(factors: Labels, n: int, name: str) -> dict[str, np.ndarray]:
    if not factors:
        raise ValueError(f"{name}: no factor given")
    labels = {factor: _array(column) for factor, column in factors.items()}
    for factor, column in labels.items():
        if column.shape != (n,):
            raise ValueError(f"{name}[{factor!r}]: expected shape ({n},), got {column.shape}")
        if column.dtype.kind not in "iub":
            raise ValueError(f"{name}[{factor!r}]: expected integer labels, got {column.dtype}")
        if (column == column[0]).all():
            raise ValueError(f"{name}[{factor!r}]: only one class ({column[0]}), nothing to tell apart")
    return labels
