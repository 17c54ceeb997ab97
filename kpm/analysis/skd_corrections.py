"""What SKD's published code does where the SSM-SKD thesis corrects it (sec. 2.2.2), so that the two can be compared.

Restated from the descriptions, on tensors and small models; for demonstrations only. What `kpm` itself does is in
`kpm.models.koopman` and `kpm.training`. Everything here runs on the CPU.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpm import solvers
from kpm.datasets.base import SequenceDataset
from kpm.models import koopman
from kpm.models.koopman_autoencoder import KoopmanAutoencoder, Output
from kpm.solvers import checks, matching
from kpm.training.config import TrainConfig
from kpm.training.losses import koopman_losses
from kpm.training.schedule import Plateau


def scrambled(z: Tensor, dim: int) -> Tensor:
    """``(n, t, H)`` read as ``(n H / dim, t, dim)`` by a plain reshape, as the published code does.

    A frame's numbers are cut into ``H / dim`` parts, and the parts follow each other as if they were moments.
    """
    _parts(z, dim)
    return z.reshape(-1, z.shape[1], dim)


def unscrambled(z: Tensor, dim: int) -> Tensor:
    """The same parts in sequences of their own, ``(n H / dim, t, dim)``: time stays time."""
    return z.unflatten(-1, (_parts(z, dim), dim)).transpose(1, 2).flatten(0, 1)


def _parts(z: Tensor, dim: int) -> int:
    if z.ndim != 3 or dim < 1 or z.shape[-1] % dim:
        raise ValueError(f"z: expected (n, t, H) with H a multiple of dim {dim}, got shape {tuple(z.shape)}")
    return z.shape[-1] // dim


@dataclasses.dataclass(frozen=True)
class OneStep:
    """Relative one-step errors ``|z[t+1] - z[t] C| / |z[t+1]|`` of a shared operator, and its eigenvalues."""

    fitted: float
    held_out: float
    eigenvalues: Tensor


def one_step(fit: Tensor, held_out: Tensor) -> OneStep:
    """Fit one operator to sequences ``(n, t, dim)`` and use it on others."""
    operator = solvers.shared(fit)
    future = held_out[:, 1:].double()
    error = torch.linalg.norm(future - held_out[:, :-1].double() @ operator.matrix) / torch.linalg.norm(future)
    return OneStep(operator.residual.item(), error.item(), solvers.eigenvalues(operator))


def published_count(values: Tensor, size: int, evaluation: bool = False) -> Tensor:
    """How many eigenvalues the published code takes for static, mode ``ball``.

    It walks along the eigenvalues `size` times, one place for a real value and two for a complex one. In training the
    walk begins at the value nearest to 1; in evaluation at the farthest.

    Parameters
    ----------
    values : Tensor
        Complex ``(*batch, m)`` with ``m >= 2 size``.

    Returns
    -------
    Tensor
        int64 ``(*batch,)``, from `size` to ``2 size``.
    """
    if not 1 <= 2 * size <= values.shape[-1]:
        raise ValueError(f"size: expected 1 to {values.shape[-1] // 2} for {values.shape[-1]} values, got {size}")
    order = (values.detach() - 1).abs().argsort(dim=-1, stable=True, descending=evaluation)
    places = torch.where(values.gather(-1, order).imag == 0, 1, 2)
    count = torch.zeros(values.shape[:-1], dtype=torch.int64)
    for _ in range(size):
        count = count + places.gather(-1, count.unsqueeze(-1)).squeeze(-1)
    return count


def parts_pair(values: Tensor, size: int) -> Tensor:
    """Whether the `size` values nearest to 1 hold one of a conjugate pair without its partner: bool ``(*batch,)``."""
    alone, whole = (solvers.nearest_to_one(values, size, pairs) for pairs in (False, True))
    return (alone != whole).any(-1)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the Koopman part is computed; the defaults are what `kpm` does.

    Attributes
    ----------
    double : bool
        Operator and eigenvalues in float64; else float32 with a QR least squares that takes full rank for granted.
    size : int
        s. With `fixed` this many eigenvalues are static, else as many as `published_count` finds.
    """

    double: bool = True
    fixed: bool = True
    size: int = 12
    threshold: float = 0.5


def koopman_part(z: Tensor, reading: Reading) -> tuple[Tensor, Tensor, int]:
    """One-step predictions ``(n, t, K)``, eigenvalues ``(K,)`` and the size of the static set, for one operator."""
    if reading.double:
        predicted, values = koopman.predict(z, "batch")
    else:
        checks.finite(z, "z")
        past, future = z[:, :-1].float(), z[:, 1:].float()
        operator = torch.linalg.lstsq(past.flatten(0, 1), future.flatten(0, 1), driver="gels").solution
        predicted = torch.cat([z[:, :1], (past @ operator).to(z.dtype)], 1)
        values = torch.linalg.eigvals(operator)
    size = reading.size if reading.fixed else int(published_count(values, reading.size))
    return predicted, values, size


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The spectral loss of latents, its eigenvalues ``(K,)``, and its gradient ``(n, t, K)`` with respect to them."""

    loss: float
    eigenvalues: Tensor
    gradient: Tensor

    def error(self, truth: Evaluation) -> dict[str, float]:
        """Largest distance of a matched eigenvalue, and relative errors of the loss and of the gradient."""
        gap = matching.optimal(truth.eigenvalues, self.eigenvalues.to(torch.complex128)).distance
        wrong = torch.linalg.norm(self.gradient.double() - truth.gradient.double()) / torch.linalg.norm(truth.gradient)
        loss = abs(self.loss - truth.loss) / truth.loss
        return {"eigenvalues": gap.max().item(), "loss": loss, "gradient": wrong.item()}


def evaluate(z: Tensor, reading: Reading) -> Evaluation:
    """The spectral loss ([SSM-SKD] eq. 4) of latents ``(n, t, K)``, in the precision of `reading`."""
    z = z.detach().to(torch.float64 if reading.double else torch.float32).requires_grad_()
    _, values, size = koopman_part(z, reading)
    loss = sum(koopman.spectral_loss(values, size, reading.threshold, z.shape[-1]))
    (gradient,) = torch.autograd.grad(loss, z)
    return Evaluation(loss.item(), values.detach(), gradient)


def exact(z: Tensor, reading: Reading, digits: int = 40) -> Evaluation:
    """As `evaluate`, with a fixed static size, in decimal arithmetic of `digits` digits: slow (seconds at K = 40).

    The gradient comes from eigenvectors, ``d lambda = u dC v / (u v)``, and from the normal equations of the least
    squares. mpmath comes with PyTorch.
    """
    import mpmath

    with mpmath.workdps(digits):
        frames = np.vectorize(mpmath.mpf, otypes=[object])(z.detach().double().numpy())
        dim = z.shape[-1]
        past, future = frames[:, :-1].reshape(-1, dim), frames[:, 1:].reshape(-1, dim)
        inverse = _array(mpmath.matrix((past.T @ past).tolist()) ** -1)
        operator = inverse @ (past.T @ future)
        values, left, right = mpmath.eig(mpmath.matrix(operator.tolist()), left=True, right=True)
        left, right = _array(left), _array(right)
        order = sorted(range(dim), key=lambda j: abs(values[j] - 1))
        static, rest = order[: reading.size], order[reading.size :]
        penalised = [j for j in rest if values[j].real > reading.threshold]
        loss = mpmath.fsum(abs(values[j] - 1) ** 2 for j in static) / len(static)
        loss += mpmath.fsum(values[j].real for j in penalised) / len(rest)
        slope = {j: 2 * mpmath.conj(values[j] - 1) / len(static) for j in static}
        slope |= {j: mpmath.mpf(1) / len(rest) for j in penalised}
        # dL = Re sum_j slope_j d lambda_j, so the gradient is a sum of outer products of left and right eigenvectors.
        to_operator = sum(np.outer(left[j], right[:, j]) * (c / (left[j] @ right[:, j])) for j, c in slope.items())
        to_operator = np.vectorize(lambda x: x.real, otypes=[object])(to_operator)
        to_future = past @ (inverse @ to_operator)
        to_past = (future - past @ operator) @ (to_operator.T @ inverse) - to_future @ operator.T
        gradient = torch.zeros(z.shape, dtype=torch.float64)
        shape = (len(z), -1, dim)
        gradient[:, :-1] += torch.from_numpy(to_past.astype(float)).reshape(shape)
        gradient[:, 1:] += torch.from_numpy(to_future.astype(float)).reshape(shape)
        spectrum = torch.tensor([complex(v) for v in values], dtype=torch.complex128)
        return Evaluation(float(loss), spectrum, gradient)


def _array(matrix: Any) -> np.ndarray:
    return np.array(matrix.tolist(), dtype=object).reshape(matrix.rows, matrix.cols)


def nearly_dependent(z: Tensor, delta: float, first: int = 0, second: int = 1) -> Tensor:
    """Latents of which coordinate `first` differs from coordinate `second` only by `delta` times itself.

    That is another basis of the same space: operator and latents change together, so in exact arithmetic every
    eigenvalue, and with it the spectral loss, stays what it was.
    """
    z = z.double().clone()
    z[..., first] = z[..., second] + delta * z[..., first]
    return z


def defective_gradient(distance: Tensor) -> Tensor:
    """Norm of the gradient of the larger eigenvalue of ``[[1, 1], [(distance / 2)^2, 1]]``, in the precision given.

    The eigenvalues are `distance` apart; at 0 the matrix has one eigenvector only.
    """
    corner = (distance / 2).square()
    one = torch.ones_like(corner)
    matrix = torch.stack([torch.stack([one, one], -1), torch.stack([corner, one], -1)], -2).requires_grad_()
    larger = torch.linalg.eigvals(matrix).real.amax(-1)
    (gradient,) = torch.autograd.grad(larger.sum(), matrix)
    return torch.linalg.matrix_norm(gradient)


def relax(z: Tensor, reading: Reading, steps: int = 200, learning_rate: float = 1e-2) -> tuple[list[float], list[int]]:
    """Latents that are themselves the parameters, under the latent prediction loss and the spectral loss alone.

    Returns
    -------
    losses : list of float
        Before each step of Adam.
    sizes : list of int
        Of the static set at each step.
    """
    z = z.detach().clone().requires_grad_()
    adam = torch.optim.Adam([z], learning_rate)
    losses, sizes = [], []
    for _ in range(steps):
        predicted, values, size = koopman_part(z, reading)
        loss = F.mse_loss(predicted, z) + sum(koopman.spectral_loss(values, size, reading.threshold, z.shape[-1]))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
        sizes.append(size)
    return losses, sizes


def frame_features(
    data: SequenceDataset, count: int, basis: tuple[Tensor, Tensor] | None = None, size: int = 48
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Frames of the first `count` of a fixed random order as their `size` leading principal components.

    Frames are averaged over blocks of 4 x 4 first, and the components scaled to unit variance on average.

    Returns
    -------
    features : Tensor
        float32 ``(count, t, size)``.
    basis : pair of Tensor
        Mean and directions, to describe other films in the same terms.
    """
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count]
    small = [F.avg_pool2d(data.to_float(data[i]).flatten(0, 1), 4).flatten(1) for i in chosen.split(64)]
    x = torch.cat(small).unflatten(0, (len(chosen), -1)).double()
    if basis is None:
        mean = x.mean((0, 1))
        centred = (x - mean).flatten(0, 1)
        variance, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
        basis = (mean, directions[:, -size:].flip(-1) / variance[-size:].mean().sqrt())
    return ((x - basis[0]) @ basis[1]).float(), basis


class SmallSkd(nn.Module):
    """SKD without pictures: an LSTM encodes features ``(n, t, f)``, a linear layer decodes them."""

    def __init__(self, features: int, dim: int, dropout: float = 0.2):
        super().__init__()
        self.encoder = nn.LSTM(features, dim, batch_first=True)
        self.decoder = nn.Linear(dim, features)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, reading: Reading) -> tuple[Output, int]:
        """Outputs as those of `KoopmanAutoencoder`, and the size of the static set."""
        z = self.encoder(x)[0]
        predicted, values, size = koopman_part(z, reading)
        return Output(z, predicted, self.decoder(self.drop(z)), self.decoder(predicted), values), size


@dataclasses.dataclass(frozen=True)
class SmallRun:
    """A training of `SmallSkd`.

    Attributes
    ----------
    steps : list of int
        When the held-out films were looked at.
    held_out : list of float
        Total loss there, in float64 and with a fixed static size whatever the run was trained with.
    rates : list of float
        Learning rate at these steps.
    norms : list of float
        Gradient norm of every step, before clipping.
    died : bool
        Whether the run ended early, in a number that is not finite or a least-squares problem without full rank.
    """

    steps: list[int]
    held_out: list[float]
    rates: list[float]
    norms: list[float]
    died: bool


def train_small(
    train: Tensor,
    held_out: Tensor,
    config: TrainConfig,
    reading: Reading | None = None,
    *,
    steps: int = 300,
    every: int = 20,
    clip: bool = True,
    decay: bool = True,
) -> SmallRun:
    """Train `SmallSkd` on features ``(n, t, f)`` with the losses, the clipping and the schedule of `kpm.training`.

    Parameters
    ----------
    config : TrainConfig
        Weights, sizes, batch, learning rate, patience, clipping norm and seed.
    reading : Reading, optional
        How to compute the Koopman part; as `kpm` does by default.
    every : int
        Steps between looks at `held_out`, each of which the schedule is told.
    clip, decay : bool
        Whether to clip gradients and to lower the learning rate on a plateau.
    """
    as_kpm = Reading(size=config.static_size, threshold=config.threshold)
    reading = reading or as_kpm
    torch.manual_seed(config.seed)
    model = SmallSkd(train.shape[-1], config.latent_dim, config.dropout)
    adam = torch.optim.Adam(model.parameters(), config.learning_rate)
    schedule = Plateau(config)
    run = SmallRun([], [], [], [], False)
    for step in range(1, steps + 1):
        batch = train[torch.randint(len(train), (config.batch_size,))]
        try:
            output, size = model(batch, reading)
        except (checks.NotFinite, torch.linalg.LinAlgError):
            return dataclasses.replace(run, died=True)
        loss = sum(koopman_losses(output, batch, dataclasses.replace(config, static_size=size)).values())
        adam.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip if clip else math.inf).item()
        run.norms.append(norm)
        if not math.isfinite(norm):
            return dataclasses.replace(run, died=True)
        for group in adam.param_groups:
            group["lr"] = schedule.rate(step - 1) if decay else config.learning_rate
        adam.step()
        if step % every == 0:
            model.eval()
            with torch.no_grad():
                output, _ = model(held_out, as_kpm)
                score = sum(koopman_losses(output, held_out, config).values()).item()
            model.train()
            schedule.step(score)
            run.steps.append(step)
            run.held_out.append(score)
            run.rates.append(adam.param_groups[0]["lr"])
    return run


def wirings(config: TrainConfig) -> dict[str, int]:
    """Parameters of the three ways to read K and H, counted on models.

    As coded: frame to K, encoder LSTM K to H; decoder LSTM H to K, K to frame, with H numbers read as K between them.
    As corrected: K to K; K to H, H to frame. With K and H exchanged throughout the encoder: H, H to K; K to H.
    """

    def count(*modules: nn.Module) -> int:
        return sum(p.numel() for m in modules for p in m.parameters())

    k, h = config.latent_dim, config.hidden_dim
    with torch.device("meta"):
        right = KoopmanAutoencoder(config.model())
        to_k = KoopmanAutoencoder(dataclasses.replace(config, hidden_dim=k).model())
        to_h = KoopmanAutoencoder(dataclasses.replace(config, latent_dim=h).model())
        k_to_h, h_to_k = (nn.LSTM(a, b, batch_first=True) for a, b in ((k, h), (h, k)))
    return {
        "as coded": count(right.encoder.cnn, k_to_h, h_to_k, to_k.decoder.cnn),
        "corrected": count(right),
        "K and H exchanged in the encoder": count(to_h.encoder.cnn, h_to_k, right.decoder),
    }
