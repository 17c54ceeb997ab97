"""What an edit of the operator is compared with, and what can be learnt again from what it leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kpm.analysis.representations import class_accuracy
from kpm.analysis.unlearning import Unlearning


@dataclasses.dataclass(frozen=True)
class Probe:
    """A linear read-out learnt anew, and what it finds.

    Attributes
    ----------
    per_class : int
        Labelled samples of each class that it was learnt from.
    forgotten, retained : float
        Share of right answers in the forgotten class, and the mean of those of the other classes.
    """

    per_class: int
    forgotten: float
    retained: float


def masking(logits: Tensor, labels: Tensor, forgotten: int) -> Unlearning:
    """The class's logit is set to minus infinity: nothing is forgotten, the answer is only not given."""
    masked = logits.clone()
    masked[:, forgotten] = -torch.inf
    return report("masked logit", logits, masked, labels, forgotten)


def direction_projection(
    states: Tensor, labels: Tensor, forgotten: int, held_out: Tensor, held_out_labels: Tensor, read
) -> Unlearning:
    """The direction from the mean of the others to the mean of the class is taken out of the last layer's states.

    Parameters
    ----------
    states, labels : Tensor
        ``(n, width)`` and ``(n,)``: the direction and the mean come from them.
    held_out, held_out_labels : Tensor
        What is judged.
    read : callable
        From states to logits.
    """
    mine = labels == forgotten
    if not mine.any() or mine.all():
        raise ValueError(f"forgotten: {int(mine.sum())} of {len(states)} rows are of class {forgotten}")
    centre = states[~mine].mean(0)
    direction = states[mine].mean(0) - centre
    direction = direction / direction.norm()
    left = held_out - ((held_out - centre) @ direction).unsqueeze(1) * direction
    return report("direction taken out", read(held_out), read(left), held_out_labels, forgotten)


def report(method: str, before: Tensor, after: Tensor, labels: Tensor, forgotten: int) -> Unlearning:
    """Two sets of logits ``(n, classes)``, compared class by class."""
    shares = (class_accuracy(logits, labels, logits.shape[1]) for logits in (before, after))
    return Unlearning(method, forgotten, *(tuple(s.tolist()) for s in shares))


def probe(
    z: Tensor,
    labels: Tensor,
    held_out: Tensor,
    held_out_labels: Tensor,
    forgotten: int,
    per_class: Sequence[int] = (10, 100, 500),
    seed: int = 7253,
) -> list[Probe]:
    """Learn a linear read-out of observables anew from some labelled samples of every class, the forgotten one too.

    If it tells the class, the observables still hold it: the way to the answer was closed, not what was known.

    Parameters
    ----------
    z, held_out : Tensor
        ``(n, p)`` and ``(m, p)``: observables, of training samples and of those that are judged.
    labels, held_out_labels : Tensor
        Their classes.
    per_class : sequence of int
        Samples of each class that are learnt from, one probe each; a class that has fewer gives all.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y, x_out = (v.cpu().numpy().astype(np.float64) for v in (z, labels, held_out))
    order = np.random.default_rng(seed).permutation(len(x))
    classes, found = int(held_out_labels.max()) + 1, []
    for count in per_class:
        rows = np.concatenate([order[y[order] == c][:count] for c in np.unique(y)])
        learner = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(x[rows], y[rows])
        answers = torch.nn.functional.one_hot(torch.from_numpy(learner.predict(x_out)).long(), classes)
        shares = class_accuracy(answers, held_out_labels.cpu(), classes)
        others = torch.cat([shares[:forgotten], shares[forgotten + 1 :]])
        found.append(Probe(count, float(shares[forgotten]), float(others.mean())))
    return found
