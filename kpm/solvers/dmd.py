"""Dynamic mode decomposition as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from kpm.solvers import checks, containers, operators, spectra
from kpm.solvers.containers import Sequences, as_numpy
from kpm.solvers.operators import Method, Operator
from kpm.solvers.prediction import predict
from kpm.solvers.streaming import Moments


class DMD(TransformerMixin, BaseEstimator):
    """Linear dynamics of sequences: ``frame[t+1] ~ frame[t] @ operator_``.

    Sequences are given as ``(time, n_features)``, ``(batch, time, n_features)``, or a list of ``(time, n_features)``
    of any lengths; as numpy arrays or torch tensors, and answers come back in kind (float64, on the CPU for numpy).

    Parameters
    ----------
    rank : int, optional
        Number of leading directions of the data to use; all by default.
    ridge : float
        Tikhonov regularisation, for ``method="least_squares"``.
    method : {"least_squares", "total", "forward_backward"}
        See `kpm.solvers.from_pairs`.
    delays : int
        A state is this many frames in a row (Hankel embedding, within a sequence), oldest first.
    shared : bool
        One operator for all sequences; if not, one for each.
    dt : float
        Time between frames, for `rates_` and `frequencies_`.

    Attributes
    ----------
    operator_ : (*batch, delays * n_features, delays * n_features)
        No batch axis if shared.
    eigenvalues_ : (*batch, m)
        The non-zero ones, largest modulus first (zeros at the end for an operator that has fewer than others).
    modes_ : (*batch, m, n_features)
        Spatial shape of each mode (in the newest frame of a state).
    rates_, frequencies_ : (*batch, m)
        Growth per unit of time, and cycles per unit of time.
    rank_, condition_, residual_ : (*batch,)
        How well the data determined the operator, see `kpm.solvers.Operator`.
    n_features_in_ : int
    """

    def __init__(
        self,
        rank: int | None = None,
        ridge: float = 0.0,
        method: Method = "least_squares",
        delays: int = 1,
        shared: bool = True,
        dt: float = 1.0,
    ) -> None:
        self.rank = rank
        self.ridge = ridge
        self.method = method
        self.delays = delays
        self.shared = shared
        self.dt = dt

    def fit(self, X: Any, y: None = None) -> DMD:
        """Fit the operator of sequences; what was learnt before is forgotten. Raises `ValueError` for bad input.

        `partial_fit` adds to it (of a shared operator).
        """
        data = containers.read(X, least=self._window() + 1)
        states, mask = data.states(self._window())
        solve = operators.shared if self.shared else operators.per_sequence
        operator = solve(states, mask, **self._options())
        self._moments = Moments("qr").partial_fit(states, mask) if self.shared else None
        return self._learn(operator, data)

    def partial_fit(self, X: Any, y: None = None) -> DMD:
        """Add whole sequences to what earlier calls, of `fit` too, learnt; the result is that of one `fit` to all.

        What is kept is a triangular factor of size ``2 * delays * n_features``, whatever the amount of data. Raises
        `ValueError` for bad input, and for ``shared=False``: operators of single sequences have nothing to add up.
        """
        if not self.shared:
            raise ValueError("shared: partial_fit needs shared=True; operators of single sequences do not add up")
        moments = getattr(self, "_moments", None)
        data = containers.read(X, self._window() + 1, None if moments is None else self.n_features_in_)
        moments = Moments("qr") if moments is None else moments
        moments.partial_fit(*data.states(self._window()))
        past, future = moments.pairs()
        # As many digits count as for all the pairs, not for the few rows that stand for them.
        tolerance = torch.finfo(torch.float64).eps * max(moments.n_pairs, past.shape[-1])
        self._moments = moments
        return self._learn(operators.from_pairs(past, future, tolerance=tolerance, **self._options()), data)

    def predict(self, X: Any, steps: int = 1) -> Any:
        """The `steps` frames after the end of each sequence: ``(..., steps, n_features)``."""
        data = self._known(X)
        states, _ = data.states(self._window())
        last = (data.lengths - self.delays).reshape(-1, 1, 1).expand(-1, 1, states.shape[-1])
        future = predict(states.gather(1, last).squeeze(1), self._operator.matrix.to(states.device), steps)
        return data.give(future[..., -data.features :])

    def reconstruct(self, X: Any) -> Any:
        """Each sequence as the operator continues its first state; the first `delays` frames are those of `X`."""
        data = self._known(X)
        states, _ = data.states(self._window())
        frames = data.frames[:, : self.delays]
        if (steps := states.shape[1] - 1) > 0:
            future = predict(states[:, 0], self._operator.matrix.to(states.device), steps)
            frames = torch.cat([frames, future[..., -data.features :]], 1)
        return data.give(frames, data.lengths)

    def transform(self, X: Any) -> Any:
        """Amplitude of each mode in each state: ``(..., time - delays + 1, m)``, complex."""
        data = self._known(X)
        states, _ = data.states(self._window())
        amplitudes = states.to(torch.complex128) @ self._spectrum.right.to(states.device)
        return data.give(amplitudes, data.lengths - self.delays + 1)

    def inverse_transform(self, X: Any) -> Any:
        """The (newest) frames that amplitudes stand for: ``(..., time, m) -> (..., time, n_features)``, real."""
        check_is_fitted(self)
        modes = self._spectrum.left[..., -self.n_features_in_ :]

        def frames(amplitudes: Tensor, i: int) -> Tensor:
            mine = modes if self.shared or amplitudes.ndim == 3 else modes[i]
            if amplitudes.shape[-1] != mine.shape[-2]:
                raise ValueError(f"X: expected (..., {mine.shape[-2]}) amplitudes, got shape {tuple(amplitudes.shape)}")
            return (amplitudes.to(mine.dtype) @ mine.to(amplitudes.device)).real

        return containers.each(X, frames)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # amplitudes are complex
        return tags

    def _window(self) -> int:
        return checks.count(self.delays, "delays", 1, 10**6)

    def _options(self) -> dict[str, Any]:
        return {"method": self.method, "ridge": self.ridge, "rank": self.rank}

    def _learn(self, operator: Operator, data: Sequences) -> DMD:
        self._operator = Operator(*(x.detach() for x in vars(operator).values()))
        self._spectrum = spectra.decompose(operator)
        continuous = spectra.continuous(self._spectrum.eigenvalues, self.dt)
        out = as_numpy if data.numpy else (lambda x: x)
        self.n_features_in_ = data.features
        self.operator_ = out(self._operator.matrix)
        self.rank_ = out(self._operator.rank)
        self.condition_ = out(self._operator.condition)
        self.residual_ = out(self._operator.residual)
        self.eigenvalues_ = out(self._spectrum.eigenvalues)
        self.modes_ = out(self._spectrum.left[..., -data.features :])
        self.rates_ = out(continuous.rate)
        self.frequencies_ = out(continuous.frequency)
        return self

    def _known(self, X: Any) -> Sequences:
        """Sequences to apply the operator to."""
        check_is_fitted(self)
        data = containers.read(X, self._window(), self.n_features_in_)
        if not self.shared and len(data.frames) != len(self._operator.matrix):
            raise ValueError(f"X: {len(data.frames)} sequences, but one operator each for {len(self._operator.matrix)}")
        return data
