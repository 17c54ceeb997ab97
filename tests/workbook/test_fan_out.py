"""Tasks on one process or on several."""

import os

import pytest
import torch

from kpm.workbook.fan_out import fan_out


def square(n):
    if n < 0:
        raise ValueError(f"{n} is negative")
    return n * n, os.getpid(), torch.get_num_threads()


def test_here():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        answers = fan_out(square, iter([1, 2, 3]))
        assert next(answers) == (1, os.getpid(), 1)
        assert [a[0] for a in answers] == [4, 9]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_on_processes_of_one_thread():
    answers = list(fan_out(square, range(6), workers=2))
    assert sorted(a[0] for a in answers) == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {a[1] for a in answers} and {a[2] for a in answers} == {1}
    with pytest.raises(ValueError, match="-1 is negative"):
        list(fan_out(square, [1, -1], workers=2))


def test_no_workers():
    with pytest.raises(ValueError, match="workers: expected a whole number"):
        fan_out(square, [1], workers=0)
