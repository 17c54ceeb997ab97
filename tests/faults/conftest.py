"""All tests here are marked ``faults``; trainings are small, of one thread, and know their environment."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kpm import environment

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("faults")


@pytest.fixture(scope="session")
def report():
    return environment.report({"train": 0})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, report):
    monkeypatch.setattr(environment, "report", lambda seeds=None: report)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the numbers of a run depend on it
    yield
    torch.set_num_threads(threads)
