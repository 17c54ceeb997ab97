"""Layers on two halves of a batch, in two processes, against PyTorch's own on the whole."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from kpm.models.shared_batch import SharedBatchNorm2d, SharedDropout, own, share_batch, whole
from tests.processes import as_torchrun, ended, start


def close(found, wanted) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def gathered_rows() -> None:
    rows = torch.arange(6.0).view(3, 2) + 10 * dist.get_rank()
    rows.requires_grad_()
    every = whole(rows)
    assert every.shape == (6, 2) and torch.equal(own(every), rows)
    (every.square().sum() * (1 + dist.get_rank())).backward()  # what both processes say: once and twice
    assert torch.equal(rows.grad, 6 * rows.detach())


def batch_norm() -> None:
    x = torch.randn(6, 3, 4, 5, dtype=torch.float64).to(memory_format=torch.channels_last)
    x[3:] += 2  # the halves differ in their means
    towards = torch.randn_like(x)
    honest, shared = (nn.BatchNorm2d(3).double() for _ in range(2))
    nn.init.normal_(honest.weight)
    shared.load_state_dict(honest.state_dict())
    share_batch(shared)
    assert type(shared) is SharedBatchNorm2d
    every, mine = x.clone().requires_grad_(), own(x).clone().requires_grad_()
    for _ in range(2):
        a, b = honest(every), shared(mine)
    close(b, own(a))
    (a * towards).sum().backward()
    (b * own(towards)).sum().backward()
    close(mine.grad, own(every.grad))
    for name, parameter in shared.named_parameters():
        dist.all_reduce(parameter.grad)  # each process has the part of its rows
        close(parameter.grad, honest.get_parameter(name).grad)
    for name, value in honest.state_dict().items():
        close(shared.state_dict()[name], value)
    close(shared.eval()(mine), own(honest.eval()(every)))


def dropout() -> None:
    shared = SharedDropout(0.3)
    lstm = nn.LSTM(4, 4, batch_first=True)  # whose output lies with time first
    for x in (torch.randn(6, 5, 4), torch.randn(2, 5, 4), lstm(torch.randn(6, 5, 4))[0], lstm(torch.randn(2, 5, 4))[0]):
        mine = own(x) if x.is_leaf else lstm(torch.randn(len(x) // 2, 5, 4))[0]
        ones = torch.empty_strided(x.shape, x.stride()).fill_(1)
        torch.manual_seed(5)
        mask = nn.functional.dropout(ones, 0.3)
        torch.manual_seed(5)
        assert torch.equal(shared(mine), mine * own(mask)) and 0 < (mask == 0).float().mean() < 1
    assert shared.eval()(mine) is mine


@pytest.mark.parametrize("check", [gathered_rows, batch_norm, dropout])
def test_two_processes_find_what_one_finds(check):
    def worker() -> int:
        dist.init_process_group("gloo")
        torch.manual_seed(0)
        check()
        dist.destroy_process_group()
        return 0

    assert ended(start(as_torchrun(2, worker))) == 0
