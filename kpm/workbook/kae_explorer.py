"""Choose a class to forget, and see decision regions and the last layer change."""

from __future__ import annotations

import functools

import numpy as np
import torch
from matplotlib.figure import Figure

from kpm.analysis.unlearning import TARGETS, Edit, Rows, forget, rows_of, unlearning_report
from kpm.datasets.points import Points
from kpm.models.surrogate import Surrogate
from kpm.workbook import kae_plots


class Forgetting:
    """Edits of a surrogate of a classifier of points of a plane, as pictures.

    Parameters
    ----------
    model : Surrogate
    train, test : Points
        Edits come from the first and are judged on the second.
    side : int
        Places of the unit square in each direction at which the surrogate is asked.
    drawn : int
        Test points that are drawn, the first ones; figures in the title are of all.
    """

    def __init__(self, model: Surrogate, train: Points, test: Points, side: int = 100, drawn: int = 300):
        self.model, self.names, self.drawn = model, test.class_names, slice(drawn)
        with torch.no_grad():
            self.z, self.labels = model.observe(train.to_float()), train.labels
            self.test_z, self.test_labels = model.observe(test.to_float()), test.labels
            places = (torch.arange(side) + 0.5) / side
            grid = torch.cartesian_prod(places, places).flip(1)  # the first row is y = 0
            self.grid_z, self.side = model.observe(grid), side
            self.operator = model.kae.power()
            self.points = test.values.numpy()
            # The plane in which the classes' means of the last layer lie apart the most, for all pictures the same.
            last = self._last(self.operator.double())
            means = torch.stack([last[self.test_labels == c].mean(0) for c in range(len(self.names))])
            self.centre = means.mean(0)
            self.plane = torch.linalg.svd(means - self.centre, full_matrices=False).Vh[:2].mT

    def _last(self, operator: torch.Tensor) -> torch.Tensor:
        """States of the last layer of the test points."""
        return self.model.kae.decode((self.test_z.double() @ operator).float())

    @functools.cached_property
    def _rows(self) -> dict[int, Rows]:
        return {c: rows_of(self.z, self.labels, c) for c in range(len(self.names))}

    def edit(self, forgotten: int, target: str = "shared", rho: float = 0.1) -> Edit:
        """The operator without a class."""
        return forget(self._rows[forgotten], self.operator, target, rho)

    @torch.no_grad()
    def figure(self, forgotten: int, target: str = "shared", rho: float = 0.1) -> Figure:
        """Regions and last layers before and after; the title says what it does to the test points."""
        edit = self.edit(forgotten, target, rho)
        found = unlearning_report(self.model, self.test_z, self.test_labels, edit)
        operators = {"before": self.operator.double(), "after": edit.operator}
        regions = {
            name: self.model.read(self.grid_z.double() @ k).argmax(1).view(self.side, self.side).numpy()
            for name, k in operators.items()
        }
        first = self.model.kae.decode(self.test_z)
        labels = self.test_labels[self.drawn].numpy()
        clouds = {"first layer": first} | {f"last layer, {name}": self._last(k) for name, k in operators.items()}
        flat = {name: ((cloud[self.drawn] - self.centre) @ self.plane).numpy() for name, cloud in clouds.items()}
        title = (
            f"Forget {self.names[forgotten]} ({target} target, ρ = {rho:g}): "
            f"{100 * found.forget_before:.1f} → {100 * found.forget_after:.1f} %, "
            f"others {100 * found.retain_before:.1f} → {100 * found.retain_after:.1f} %"
        )
        return kae_plots.plot_forgetting(
            {f"answers {name}": region for name, region in regions.items()},
            self.points[self.drawn], labels, flat, self.names, title,
        )  # fmt: skip

    def widget(self):
        """Controls for class, target and rho above the picture."""
        import ipywidgets

        from kpm.workbook.widgets import explorer

        return explorer(
            self.figure,
            forgotten=ipywidgets.Dropdown(options=[(n, c) for c, n in enumerate(self.names)], description="forget"),
            target=ipywidgets.Dropdown(options=TARGETS, value="shared", description="target"),
            rho=ipywidgets.SelectionSlider(
                options=[float(r) for r in np.round(10.0 ** np.arange(-3, 1.5, 0.5), 4)],
                value=0.1,
                description="ρ",
                continuous_update=False,
            ),
        )
