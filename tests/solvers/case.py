"""What every operator solver must do: a test class inherits `OperatorCase`, says what to solve and what to expect."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import pytest
import torch
from torch import Tensor

from kpm.solvers import Operator


def noisy_system(*batch: int, time: int, dim: int, noise: float = 0.05, seed: int = 0) -> Tensor:
    """Noisy sequences of one linear system whose eigenvalues are slow, stable and in the right half plane."""
    rng = np.random.default_rng(seed)
    basis = np.eye(dim) + 0.2 * rng.normal(size=(dim, dim))
    angles = np.linspace(0.2, 0.8, dim // 2)
    blocks = np.diag(np.full(dim, 0.95))
    for i, a in enumerate(angles):
        rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        blocks[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = 0.98 * rotation
    matrix = basis @ blocks @ np.linalg.inv(basis)
    frames = [rng.normal(size=(*batch, dim))]
    for _ in range(time - 1):
        frames.append(frames[-1] @ matrix)
    z = np.stack(frames, -2)
    return torch.from_numpy(z + noise * rng.normal(size=z.shape))


def pairs(sequences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of frames within sequences, stacked."""
    return np.concatenate([s[:-1] for s in sequences]), np.concatenate([s[1:] for s in sequences])


class OperatorCase(ABC):
    """Subclasses give `solve`, `dense`, and whether the operator is `shared`."""

    shared = True
    time, dim = 12, 4
    digits = 1e-10

    @abstractmethod
    def solve(self, z: Tensor, mask: Tensor | None = None) -> Operator:
        """What is tested."""

    @abstractmethod
    def dense(self, past: np.ndarray, future: np.ndarray) -> np.ndarray:
        """What it must give for pairs of frames, in numpy."""

    def expected(self, sequences: list[np.ndarray]) -> np.ndarray:
        if self.shared:
            return self.dense(*pairs(sequences))
        return np.stack([self.dense(*pairs([s])) for s in sequences])

    def sample(self, batch: int = 3, seed: int = 0) -> Tensor:
        return noisy_system(batch, time=self.time, dim=self.dim, seed=seed)

    def same(self, found: Tensor, wanted: np.ndarray, digits: float | None = None) -> None:
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.detach().cpu().numpy(), wanted, rtol=0, atol=digits or self.digits)

    def test_dense_reference(self) -> None:
        z = self.sample(5)
        operator = self.solve(z)
        self.same(operator.matrix, self.expected(list(z.numpy())))
        assert operator.rank.shape == operator.condition.shape == operator.residual.shape == operator.matrix.shape[:-2]
        assert torch.isfinite(operator.condition).all() and (operator.residual >= 0).all()

    def test_any_batch_shape(self) -> None:
        z = self.sample(6).reshape(2, 3, self.time, self.dim)
        found = self.solve(z).matrix
        wanted = self.expected(list(z.reshape(6, self.time, self.dim).numpy()))
        assert found.shape == ((self.dim,) * 2 if self.shared else (2, 3, self.dim, self.dim))
        self.same(found.reshape(wanted.shape), wanted)
        one = self.solve(z[0, 0])
        self.same(one.matrix, self.dense(*pairs([z[0, 0].numpy()])))
        assert one.matrix.shape == (self.dim, self.dim)

    def test_gradcheck(self) -> None:
        z = self.sample(2).requires_grad_()
        assert torch.autograd.gradcheck(lambda z: self.solve(z).matrix, z)

    def test_float32_is_solved_in_float64(self) -> None:
        z = self.sample().float()
        assert torch.equal(self.solve(z).matrix, self.solve(z.double()).matrix)

    def test_mask_is_a_ragged_batch(self) -> None:
        z = self.sample(3)
        mask = torch.ones(3, self.time, dtype=torch.bool)
        mask[1, -3:] = False
        mask[2, :2] = False
        wanted = self.expected([z[0].numpy(), z[1, :-3].numpy(), z[2, 2:].numpy()])
        self.same(self.solve(torch.where(mask.unsqueeze(-1), z, torch.nan), mask).matrix, wanted)

    def test_no_pair_across_a_border(self) -> None:
        """A frame masked in the middle makes two sequences of one."""
        z = self.sample(1, seed=3)[0]
        z = torch.cat([z, self.sample(1, seed=4)[0]])
        mask = torch.ones(len(z), dtype=torch.bool)
        mask[self.time] = False
        halves = [z[: self.time].numpy(), z[self.time + 1 :].numpy()]
        self.same(self.solve(z, mask).matrix, self.dense(*pairs(halves)))

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_not_finite(self, value: float) -> None:
        z = self.sample()
        z[2, 1, 3] = value
        with pytest.raises(ValueError, match=r"z\[2, 1, 3\] is not finite but (NaN|inf) \(shape \(3, "):
            self.solve(z)

    @pytest.mark.parametrize("shape", [(3, 1, 4), (0, 5, 4), (3, 5, 0), (4,)])
    def test_bad_shapes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=rf"z: .*{str(shape)[1:-1]}"):
            self.solve(torch.zeros(shape))

    def test_bad_masks(self) -> None:
        z = self.sample()
        with pytest.raises(ValueError, match=r"mask: expected bool of shape \(3, "):
            self.solve(z, torch.ones(3, self.time))
        mask = torch.ones(3, self.time, dtype=torch.bool)
        mask[:, ::2] = False
        with pytest.raises(ValueError, match=r"mask.*no two frames in a row"):
            self.solve(z, mask)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_cuda_is_the_same(self) -> None:
        z = self.sample()
        on_gpu = self.solve(z.cuda())
        assert on_gpu.matrix.is_cuda
        self.same(on_gpu.matrix, self.solve(z).matrix.numpy(), 1e-9)


class RankDeficientCase:
    """For solvers with a minimum-norm solution: data that does not span the space, or has few pairs."""

    @pytest.mark.parametrize("time", [2, 4, 12])
    def test_rank_deficient(self, time: int) -> None:
        z = noisy_system(3, time=time, dim=self.dim)
        z[..., -1] = z[..., 0] - 2 * z[..., 1]
        z = z.requires_grad_()
        operator = self.solve(z)
        wanted = self.expected(list(z.detach().numpy()))
        self.same(operator.matrix, wanted)
        most = np.linalg.matrix_rank(pairs(list(z.detach().numpy()))[0]) if self.shared else min(time - 1, self.dim - 1)
        assert (operator.rank == most).all()
        operator.matrix.square().sum().backward()
        assert torch.isfinite(z.grad).all()

    def test_constant_and_zero_sequences(self) -> None:
        z = torch.zeros(2, 5, self.dim)
        z[1] = torch.arange(1, self.dim + 1)
        operator = self.solve(z)
        self.same(operator.matrix, self.expected(list(z.double().numpy())))
        if not self.shared:
            assert operator.rank.tolist() == [0, 1] and operator.condition[0] == torch.inf

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_cuda_is_the_same_when_rank_deficient(self) -> None:
        z = noisy_system(3, time=4, dim=self.dim)
        z[..., -1] = z[..., 0]
        self.same(self.solve(z.cuda()).matrix, self.solve(z).matrix.numpy(), 1e-9)
