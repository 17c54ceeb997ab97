"""Koopman analysis of neural networks (KANN): what a trained network computes, seen through a linear operator."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from kpm.analysis import kann_measures as measures
from kpm.analysis.kann_analysis import PAIRS, analyse, mode_numbers
from kpm.analysis.kann_measures import Comparison
from kpm.solvers import checks, matching, spectra
from kpm.solvers.containers import as_numpy
from kpm.solvers.prediction import predict
from kpm.solvers.streaming import Moments


class KANN(TransformerMixin, BaseEstimator):
    """Koopman analysis of the hidden states of a trained network ([KANN]).

    States are ``(*batch, time, hidden)``, numpy arrays or torch tensors; answers come back in kind, in float64. Only
    second moments are kept, so batches of any number can be read in flat memory. With `record_states`::

        kann = KANN()
        for batch in record_states(model, loader, layer="gru"):
            kann.partial_fit(batch.states, batch.lengths)
        print(kann.eigenvalues_[:4], kann.memory_horizon_[:4])

    Parameters
    ----------
    basis : {"svd", "pca", "identity"}, array ``(hidden, k)`` or `Basis`
        Right singular vectors of all states, un-centred as published; principal axes of centred states; states as
        they are; or one's own columns, which need not be orthonormal. An un-centred basis that spans all states does
        not change the eigenvalues. ``"pca"`` does unless the mean is at rest: the operator has no constant term.
    rank : int, "published" or None
        Number of directions of ``"svd"`` and ``"pca"``; all by default ([KANN] sec. 3.4). The published code takes
        ``min(pairs, hidden) - 1``.
    ridge : float
        Tikhonov regularisation of the operator.
    pair : {"real", "abs"}
        What a projection onto several modes (a conjugate pair) is, see `reconstruct`. ``"abs"`` is published.
    method : {"gram", "qr"}
        How moments are summed, see `Moments`: ``"qr"`` is slower and for states of condition number above 1e5 or so.

    Attributes
    ----------
    basis_, mean_, singular_values_ : (hidden, k), (hidden,), (k,)
        `B`, what is subtracted first (zero but for ``"pca"``), and the spread of the states along each column (for
        one's own basis, its singular values).
    dual_ : (k, hidden)
        Pseudo-inverse of `B`.
    operator_ : (k, k)
        `C`.
    eigenvalues_ : (m,)
        The non-zero ones, complex, largest modulus first.
    pairs_ : tuple of tuples
        Mode numbers, a conjugate pair together and a real mode alone, in order of modulus.
    right_, left_ : (k, m), (m, k)
        `V`, with columns of unit length, and `U`; ``left_ @ right_ = 1``.
    eigenvectors_, modes_ : (hidden, m), (m, hidden)
        ``B V``, what is measured in a state, and ``U pinv(B)``, what a unit of it adds to a state.
    memory_horizon_ : (m,)
        Steps until a mode has faded to one hundredth ([KANN] eq. 9); infinite for modulus 1 and above.
    rank_, condition_, residual_ : scalars
        How well the states determine `C`, see `kpm.solvers.Operator`.
    eigenvector_condition_ : scalar
        Condition number of `V`: by how much errors of eigenvectors and amplitudes can grow.
    moments_ : Moments
        What has been read; `fit_moments` analyses the same again with another basis or rank.
    n_features_in_ : int

    Notes
    -----
    The published code is ``KANN(rank="published", pair="abs")``, and it fits the padding of short sequences too: give
    neither `lengths` nor `mask` for that.
    Attributes are worked out when first asked for after `partial_fit`.
    """

    def __init__(
        self,
        basis: Any = "svd",
        rank: int | Literal["published"] | None = None,
        ridge: float = 0.0,
        pair: Literal["real", "abs"] = "real",
        method: Literal["gram", "qr"] = "gram",
    ) -> None:
        self.basis = basis
        self.rank = rank
        self.ridge = ridge
        self.pair = pair
        self.method = method

    def fit(self, states: Any, lengths: Any = None, mask: Any = None) -> KANN:
        """Analyse states; what was read before is forgotten.

        Parameters
        ----------
        states : ``(*batch, time, hidden)``
            At least two frames.
        lengths : int ``(*batch,)``, optional
            Number of leading frames that count.
        mask : bool ``(*batch, time)``, optional
            True for frames that count; instead of `lengths`. Other frames may hold anything, NaN too.

        Raises
        ------
        ValueError
            For a shape that does not fit, NaN, lengths out of range, a `rank` above `hidden`, or no two frames in a
            row.
        """
        return self._learn(*self._read(Moments(self.method), states, lengths, mask))

    def partial_fit(self, states: Any, lengths: Any = None, mask: Any = None) -> KANN:
        """Add a batch of whole sequences; the result is that of one `fit` to all of them. Parameters as for `fit`."""
        moments = self.__dict__.get("moments_")
        return self._take(*self._read(Moments(self.method) if moments is None else moments, states, lengths, mask))

    def fit_moments(self, moments: Moments) -> KANN:
        """Analyse what `moments` has read: ``other.moments_``, or the sum of those of several workers.

        Attributes are numpy arrays then.
        """
        return self._learn(moments.merge(Moments(moments.method)), numpy=True)

    def transform(self, states: Any) -> Any:
        """Coordinates ``(h - mean) B``: ``(*batch, hidden) -> (*batch, k)``."""
        h, give = self._given(states)
        return give(self._analysis.coordinates(h))

    def inverse_transform(self, coordinates: Any) -> Any:
        """States of coordinates, ``z pinv(B) + mean``: ``(*batch, k) -> (*batch, hidden)``."""
        z, give = self._given(coordinates, "coordinates", self._analysis.dual.shape[0])
        return give(self._analysis.states(z))

    def amplitudes(self, states: Any) -> Any:
        """Coordinates in eigenvectors, ``h B V``, complex: ``(*batch, hidden) -> (*batch, m)``.

        Each is multiplied by its eigenvalue at every step ([KANN] eqs. 7, 8).
        """
        h, give = self._given(states)
        return give(self._analysis.amplitudes(h))

    def predict(self, states: Any, steps: int = 1) -> Any:
        """Each state `steps` steps later, ``h B C^steps pinv(B)`` ([KANN] eq. 6): ``(*batch, hidden)``, same shape."""
        h, give = self._given(states)
        learnt = self._analysis
        power = torch.linalg.matrix_power(learnt.operator.matrix, checks.count(steps, "steps", 1, 10**6))
        checks.finite(power, "prediction", ": the operator makes it grow out of range")
        return give(learnt.states(learnt.coordinates(h) @ power.to(h.device)))

    def rollout(self, states: Any, steps: int) -> Any:
        """The `steps` states after each given one: ``(*batch, hidden) -> (*batch, steps, hidden)``."""
        h, give = self._given(states)
        learnt = self._analysis
        return give(learnt.states(predict(learnt.coordinates(h), learnt.operator.matrix.to(h.device), steps)))

    def magnitude(self, states: Any, modes: Any = None, pair: Literal["real", "abs"] | None = None) -> Any:
        """Projection magnitude of states in modes ([KANN] eq. 10): ``(*batch, hidden) -> (*batch, len(modes))``.

        Parameters
        ----------
        states : ``(*batch, hidden)``
        modes : sequence, optional
            All by default. A number stands for one eigenvector and gives ``|h B V_j|``, equal for a mode and its
            conjugate; so in paper and code. A tuple (an entry of ``pairs_``) gives the length of what `reconstruct`
            makes of these modes, without the mean: ours, in units of the state.
        pair : {"real", "abs"}, optional
            For tuples, as in `reconstruct`; that of the estimator by default.
        """
        h, give = self._given(states)
        learnt = self._analysis
        amplitudes = learnt.amplitudes(h).abs()
        if modes is None:
            return give(amplitudes)
        columns = []
        for entry in [modes] if isinstance(modes, int | np.integer) else modes:
            numbers = mode_numbers(entry, amplitudes.shape[-1])
            if np.ndim(entry) == 0:
                columns.append(amplitudes[..., numbers[0]])
            else:
                part = learnt.part(h, numbers, pair or self.pair) @ learnt.dual.to(h.device)
                columns.append(torch.linalg.vector_norm(part, dim=-1))
        return give(torch.stack(columns, -1))

    def reconstruct(self, states: Any, modes: Any, pair: Literal["real", "abs"] | None = None) -> Any:
        """Projection-reconstruction of states from some modes ([KANN] eq. 11): ``(*batch, hidden)``, same shape.

        Parameters
        ----------
        states : ``(*batch, hidden)``
        modes : int or sequence of int
            Mode numbers J, for example an entry of ``pairs_``.
        pair : {"real", "abs"}, optional
            ``"real"``: ``h B V_J U_J pinv(B)``, a projection. Conjugates of the given modes are added, so that it is
            real; the parts of ``pairs_`` then sum up to the state (what the modes span of it). ``"abs"``: entrywise
            modulus ``|V_J U_J|``, as published. That is no projection: the product of a conjugate pair is real
            already, and the modulus takes its signs away. Modes are used as given. That of the estimator by default.

        Notes
        -----
        ``mean_`` is added, which is zero but for ``"pca"``.
        """
        h, give = self._given(states)
        learnt = self._analysis
        numbers = mode_numbers(modes, len(learnt.spectrum.eigenvalues))
        return give(learnt.states(learnt.part(h, numbers, pair or self.pair)))

    def relative_error(self, states: Any, steps: int = 1, lengths: Any = None, mask: Any = None) -> float:
        """Mean of ``|prediction - h|^2 / |h|^2`` over frames ([KANN] eq. 12), see `kann_measures.relative_errors`.

        For many batches: ``sum(relative_errors(kann, batch) for batch in batches).mean``.
        """
        check_is_fitted(self)
        return measures.relative_errors(self, states, checks.count(steps, "steps", 1, 10**6), lengths, mask).mean

    def agreement(self, readout: Callable[[Any], Any], states: Any, **options: Any) -> float:
        """Share of equal decisions of `readout` on true and predicted states; options of `kann_measures.agreements`.

        For many batches: ``sum(agreements(kann, readout, batch) for batch in batches).mean``.
        """
        check_is_fitted(self)
        return measures.agreements(self, readout, states, **options).mean

    def dominant(self, states: Any, lengths: Any = None, mask: Any = None) -> np.ndarray:
        """Mode numbers by ``sum_t |h_t B V|`` averaged over sequences, largest first, conjugates together: ``(m,)``.

        The order of the published heartbeat analysis. By modulus of the eigenvalue it is simply 0, 1, 2, ...
        """
        check_is_fitted(self)
        mean = measures.mean_magnitudes(self, states, lengths, mask).mean
        for group in self.pairs_:
            mean[[*group]] = mean[[*group]].mean()  # equal but for rounding, which would part them
        return as_numpy(mean.argsort(descending=True, stable=True))

    def memory_horizon(self, eps: float = 1e-2) -> Any:
        """Steps until each mode has faded to the fraction `eps`: ``ln(eps) / ln|lambda|`` ([KANN] eq. 9), ``(m,)``."""
        return self._kind(spectra.memory_horizon(self._analysis.spectrum.eigenvalues, eps))

    def compare(self, other: KANN, count: int | None = None) -> Comparison:
        """Match the `count` leading eigenvalues with those of another analysis of the same states, one to one.

        Parameters
        ----------
        other : KANN
            Fitted to states of the same size, with `count` modes or more; for example through another basis.
        count : int, optional
            As many as both have by default.
        """
        check_is_fitted(other)
        ours, theirs = self._analysis, other._analysis
        if ours.dual.shape[-1] != theirs.dual.shape[-1]:
            raise ValueError(f"other: {theirs.dual.shape[-1]} hidden units, expected {ours.dual.shape[-1]}")
        most = min(len(part.spectrum.eigenvalues) for part in (ours, theirs))
        count = most if count is None else checks.count(count, "count", 1, most)
        found = matching.optimal(ours.spectrum.eigenvalues[:count].cpu(), theirs.spectrum.eigenvalues.cpu())
        a, b = ours.eigenvectors[:, :count].cpu(), theirs.eigenvectors.cpu()[:, found.index]
        cosine = (a.conj() * b).sum(0).abs() / (a.norm(dim=0) * b.norm(dim=0))
        return Comparison(*(self._kind(part) for part in (found.index, found.distance, cosine)))

    def __sklearn_is_fitted__(self) -> bool:
        return "moments_" in self.__dict__

    def __getattr__(self, name: str) -> Any:
        """Work out what `partial_fit` has left open, when an attribute is first asked for."""
        if name not in _LEARNT:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if "moments_" not in self.__dict__:
            raise NotFittedError("KANN: not fitted yet; call fit or partial_fit with states first")
        self._learn(self.moments_, self._numpy)
        return self.__dict__[name]

    def _read(self, moments: Moments, states: Any, lengths: Any, mask: Any) -> tuple[Moments, bool]:
        """Add states to moments; these, and whether the states are numpy."""
        if self.pair not in PAIRS:
            raise ValueError(f"pair: expected 'real' or 'abs', got {self.pair!r}")
        states = measures.as_array(states)
        if isinstance(self.rank, int | np.integer) and states.ndim > 1:
            checks.count(self.rank, "rank", 1, states.shape[-1])
        try:
            moments.partial_fit(states, mask=mask, lengths=lengths)
        except ValueError as error:  # its argument has another name there
            raise ValueError(re.sub(r"^x\b", "states", str(error))) from error
        return moments, not isinstance(states, Tensor)

    def _take(self, moments: Moments, numpy: bool) -> KANN:
        """Keep moments; what was learnt from earlier ones goes."""
        for name in _LEARNT:
            self.__dict__.pop(name, None)
        self.moments_, self.n_features_in_, self._numpy = moments, moments.dim, numpy
        return self

    def _learn(self, moments: Moments, numpy: bool) -> KANN:
        """Analyse moments, and keep them if that works."""
        analysis = analyse(moments, self.basis, self.rank, self.ridge)
        basis, operator, spectrum = analysis.basis, analysis.operator, analysis.spectrum
        arrays = {
            "basis_": basis.vectors,
            "mean_": basis.mean,
            "singular_values_": basis.singular_values,
            "dual_": analysis.dual,
            "operator_": operator.matrix,
            "eigenvalues_": spectrum.eigenvalues,
            "right_": spectrum.right,
            "left_": spectrum.left,
            "eigenvectors_": analysis.eigenvectors,
            "modes_": spectrum.left @ analysis.dual.to(spectrum.left.dtype),
            "memory_horizon_": spectra.memory_horizon(spectrum.eigenvalues),
        }
        self._take(moments, numpy)
        for name, value in arrays.items():
            setattr(self, name, self._kind(value))
        self._analysis, self.pairs_, self.rank_ = analysis, analysis.pairs, int(operator.rank)
        self.condition_, self.residual_ = float(operator.condition), float(operator.residual)
        self.eigenvector_condition_ = float(spectrum.condition)
        return self

    def _given(self, x: Any, name: str = "states", width: int | None = None) -> tuple[Tensor, Callable[[Tensor], Any]]:
        """Rows ``(*batch, width)`` in float64, and the way back to the kind of `x`."""
        check_is_fitted(self)
        width = self.n_features_in_ if width is None else width
        x = measures.as_array(x, name)
        if x.ndim < 1 or x.shape[-1] != width:
            raise ValueError(f"{name}: expected (*batch, {width}), got shape {tuple(x.shape)}")
        h = x.double() if isinstance(x, Tensor) else torch.from_numpy(np.array(x, np.float64))
        checks.finite(h, name)
        return h, (lambda part: part) if isinstance(x, Tensor) else as_numpy

    def _kind(self, value: Tensor) -> Any:
        """An attribute in the kind of the states that were read last."""
        return as_numpy(value) if self._numpy else value


# What `_learn` sets.
_LEARNT = (
    *("_analysis", "basis_", "mean_", "singular_values_", "dual_", "operator_", "rank_", "condition_", "residual_"),
    *("eigenvalues_", "pairs_", "right_", "left_", "eigenvectors_", "modes_", "memory_horizon_"),
    "eigenvector_condition_",
)
