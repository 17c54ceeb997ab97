"""Figures of the theory notebooks: phase planes, spectra beside their theory, noise bias, memory, one mode.

Pure functions from arrays to a `Figure`, in the style of `kpm.workbook.plots`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from kpm.workbook.plots import BLUE, COLOURS, GREEN, GREY, ORANGE, RED, SKY, _figure, style

PALE = "#c9c9c9"  # broad lines of theory and truth, with the estimates on top
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v")


def plot_orbits(panels: Mapping[str, np.ndarray], xlabel: str, ylabel: str, title: str = "") -> Figure:
    """Orbits in the plane, one panel per set.

    Parameters
    ----------
    panels : dict of str to array
        ``(n, time, 2)`` each; a dot marks where an orbit begins.
    """
    figure, axes = _figure(3.5 * len(panels), 2.7, 1, len(panels), sharex=True, sharey=True)
    with style():
        for ax, (name, orbits) in zip(axes[0], panels.items()):
            for orbit in np.asarray(orbits):
                ax.plot(*orbit.T, color=BLUE, lw=1.3)
                ax.plot(*orbit[0], "o", ms=5, color=RED)
            ax.set(xlabel=xlabel, title=name)
        axes[0, 0].set_ylabel(ylabel)
        if title:
            figure.suptitle(title, fontsize=11)
    return figure


def plot_series(
    t: np.ndarray, panels: Mapping[str, Mapping[str, np.ndarray]], xlabel: str, ylabel: str, legend: str = "upper right"
) -> Figure:
    """Time series over the same times `t`, one panel below the other; the first of each panel is a broad grey line."""
    figure, axes = _figure(6.4, 0.5 + 1.5 * len(panels), len(panels), 1, sharex=True)
    with style():
        for ax, (name, series) in zip(axes[:, 0], panels.items()):
            for i, (label, values) in enumerate(series.items()):
                look = {"color": PALE, "lw": 5} if i == 0 else {"color": COLOURS[i - 1]}
                if i > 1:
                    look["ls"] = DASHES[(i - 1) % len(DASHES)]
                ax.plot(t, values, label=label, **look)
            first = np.asarray(next(iter(series.values())))
            room = 0.25 * np.ptp(first)
            ax.set(ylabel=ylabel, title=name, ylim=(first.min() - room, first.max() + 2 * room))
            ax.legend(loc=legend, ncols=3)
        axes[-1, 0].set_xlabel(xlabel)
    return figure


def plot_rates(
    panels: Mapping[str, np.ndarray], theory: np.ndarray, limits: tuple[float, float, float, float]
) -> Figure:
    """Continuous-time eigenvalues found (dots) on those of theory (open circles), two panels in a row.

    Parameters
    ----------
    panels : dict of str to complex array
        Per second.
    theory : complex array
    limits : tuple of float
        Smallest and largest real part, smallest and largest imaginary part shown.
    """
    theory = np.asarray(theory, dtype=complex)
    rows = math.ceil(len(panels) / 2)
    figure, axes = _figure(8.0, 0.4 + 2.0 * rows, rows, 2, sharex=True, sharey=True)
    with style():
        for ax, (name, values) in zip(axes.ravel(), panels.items()):
            values = np.asarray(values, dtype=complex)
            ax.axvline(0, color=GREY, lw=1)
            ax.plot(theory.real, theory.imag, "o", ms=12, mfc="none", mec=ORANGE, mew=1.8, label="theory")
            ax.plot(values.real, values.imag, "o", ms=5, mew=0, color=BLUE, label="found")
            ax.set(xlim=limits[:2], ylim=limits[2:], title=name)
        for ax in axes.ravel()[len(panels) :]:
            ax.set_axis_off()
        for ax in axes[-1]:
            ax.set_xlabel("growth rate (1/s)")
        for ax in axes[:, 0]:
            ax.set_ylabel("frequency (rad/s)")
        axes[0, 0].legend(loc="upper left", ncols=2)
    return figure


def plot_fields(
    x: np.ndarray, y: np.ndarray, fields: Mapping[str, np.ndarray], orbits: np.ndarray | None = None
) -> Figure:
    """Functions of the plane as level sets, blue below zero and red above, with orbits on top.

    Parameters
    ----------
    x, y : array
        ``(n,)`` and ``(m,)``.
    fields : dict of str to array
        ``(m, n)`` each: the value at ``x[j], y[i]``.
    orbits : array, optional
        ``(k, time, 2)``.
    """
    figure, axes = _figure(2.6 * len(fields), 2.6, 1, len(fields), sharey=True)
    with style():
        for ax, (name, values) in zip(axes[0], fields.items()):
            size = np.abs(values).max()
            ax.contourf(x, y, values, levels=np.linspace(-size, size, 14), cmap="RdBu_r")
            ax.contour(x, y, values, levels=[0], colors="black", linewidths=1.2)
            for orbit in () if orbits is None else np.asarray(orbits):
                ax.plot(*orbit.T, color="black", lw=0.9, ls=":")
            ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel="x", title=name)
            ax.grid(False)
        axes[0, 0].set_ylabel("y")
    return figure


def plot_bias(
    noise: Sequence[float],
    found: Mapping[str, tuple[np.ndarray, np.ndarray]],
    truth: float,
    theory: Sequence[float],
    xlabel: str,
    ylabel: str,
) -> Figure:
    """What estimators give on average against the noise, with one standard deviation, beside the truth.

    Parameters
    ----------
    found : dict of str to (mean, standard deviation)
        One value per noise level each.
    theory : sequence of float
        What least squares should give.
    """
    figure, axes = _figure(6.6, 3.7)
    ax: Axes = axes[0, 0]
    with style():
        ax.axhline(truth, color="black", lw=1, label="truth")
        ax.plot(noise, theory, color=PALE, lw=5, label="theory of the bias")
        for i, (name, (mean, spread)) in enumerate(found.items()):
            shift = 1 + 0.03 * i  # so that the bars do not hide one another
            ax.errorbar(
                np.asarray(noise) * shift, mean, spread, marker=MARKERS[i], ms=5, ls=DASHES[i % len(DASHES)], lw=1.3,
                capsize=2, color=COLOURS[i], label=name,
            )  # fmt: skip
        ax.set(xscale="log", xlabel=xlabel, ylabel=ylabel, xticks=noise)
        ax.set_xticks(noise, [f"{level:g}" for level in noise])
        ax.minorticks_off()
        ax.legend(loc="lower left")
    return figure


def plot_harmonics(
    harmonics: np.ndarray, theory: np.ndarray, found: Mapping[str, np.ndarray], xlabel: str, ylabel: str
) -> Figure:
    """One number per harmonic: theory as a broad line, each estimator as marks of its own shape and size."""
    figure, axes = _figure(6.6, 3.5)
    ax: Axes = axes[0, 0]
    with style():
        ax.plot(harmonics, theory, color=PALE, lw=5, label="theory")
        for i, (name, values) in enumerate(found.items()):
            # Hollow and of growing size, so that estimators which agree can all be seen.
            ax.plot(harmonics, values, MARKERS[i], ms=5 + 2.5 * i, mfc="none", mew=1.6, color=COLOURS[i], label=name)
        ax.set(xlabel=xlabel, ylabel=ylabel, xticks=harmonics)
        ax.legend(loc="upper left")
    return figure


def plot_ranks(
    frames: Sequence[int], ranks: Sequence[int], dim: int, cloud: np.ndarray, shared: np.ndarray, title: str = ""
) -> Figure:
    """Rank of an operator against the length of its sequence, and spectra of operators of single sequences.

    Parameters
    ----------
    frames, ranks : sequence of int
        Lengths T, and the ranks found.
    dim : int
        K.
    cloud : complex array
        Eigenvalues of many operators of one sequence each.
    shared : complex array
        Eigenvalues of the one operator of all sequences.
    """
    figure, _ = _figure(8.0, 3.4, 1, 2, width_ratios=(1, 1.15))
    left, right = figure.axes
    with style():
        line = np.arange(2, max(frames) + 1)
        left.plot(line, np.minimum(line - 1, dim), color=PALE, lw=5, label="min(T − 1, K)")
        left.plot(frames, ranks, "o", ms=5, color=BLUE, label="found")
        left.set(
            xlabel="frames T of the sequence", ylabel="rank of the operator", title=f"Rank in K = {dim} dimensions"
        )
        left.legend(loc="lower right")
        cloud, shared = np.asarray(cloud).ravel(), np.asarray(shared).ravel()
        right.add_patch(Circle((0, 0), 1, fill=False, color=GREY, lw=1.2))
        right.plot(cloud.real, cloud.imag, "o", ms=3, mew=0, alpha=0.35, color=BLUE, label="one per sequence")
        right.plot(shared.real, shared.imag, "x", ms=9, mew=2, color=RED, label="one for all")
        right.set(xlim=(-1.3, 1.4), ylim=(-1.25, 1.25), aspect="equal", xlabel="Re λ", ylabel="Im λ", title=title)
        right.legend(loc="upper left", bbox_to_anchor=(0.98, 1.0), markerscale=1.3)
    return figure


def plot_horizon(moduli: Mapping[str, float], eps: float, longest: float = 1e5) -> Figure:
    """How long modes last: the horizon against the distance to the unit circle, and how the named modes fade.

    Parameters
    ----------
    moduli : dict of str to float
        Moduli of eigenvalues between 0 and 1, by name.
    eps : float
        The fraction at which a mode counts as forgotten.
    """
    figure, _ = _figure(7.6, 3.1, 1, 2)
    left, right = figure.axes
    with style():
        gap = np.logspace(-4.5, -0.3, 200)
        left.loglog(gap, math.log(eps) / np.log1p(-gap), color=GREY)
        right.axhline(eps, color=GREY, lw=1, ls=":")
        steps = np.logspace(0, math.log10(longest), 300)
        for i, (name, modulus) in enumerate(moduli.items()):
            horizon = math.log(eps) / math.log(modulus)
            left.plot(1 - modulus, horizon, MARKERS[i % 5], ms=8, color=COLOURS[i % 6], label=name)
            right.semilogx(steps, modulus**steps, color=COLOURS[i % 6], ls=DASHES[i % 4])
            right.plot(horizon, eps, MARKERS[i % 5], ms=8, color=COLOURS[i % 6])
        left.set(xlabel="1 − |λ|", ylabel="memory horizon (steps)", title="ln ε / ln|λ|")
        right.set(xlabel="steps", ylabel="what is left of the mode", title=f"fading to ε = {eps:g}")
        left.legend(loc="upper right")
    return figure


def mode_shape(phase: float, points: int = 21) -> np.ndarray:
    """A complex mode of a string: a standing wave for `phase` 0, one that travels as its phase falls by `phase`.

    Complex ``(points,)`` at equal distances over the string, held at both ends.
    """
    x = np.linspace(0, 1, points)
    return np.sin(np.pi * x) * np.exp(-1j * phase * x)


def plot_mode(modulus: float, angle: float, phase: float = 0.0, steps: int = 60, eps: float = 1e-2) -> Figure:
    """One conjugate pair of eigenvalues: where it is, how its amplitude moves, the mode, and the motion of the whole.

    Parameters
    ----------
    modulus, angle : float
        The eigenvalue ``modulus * exp(i angle)``, the angle in radians per step.
    phase : float
        See `mode_shape`.
    steps : int
        Steps shown.
    eps : float
        Fraction at which the mode counts as forgotten; marked if it lies within `steps`.
    """
    if not modulus > 0:
        raise ValueError(f"modulus: expected a positive number, got {modulus!r}")
    t = np.arange(steps + 1)
    value = modulus * np.exp(1j * angle)
    powers, mode = value**t, mode_shape(phase)
    x = np.linspace(0, 1, len(mode))
    figure, _ = _figure(7.6, 4.8, 2, 2, width_ratios=(1, 1.5))
    plane, series, shape, film = figure.axes
    with style():
        plane.add_patch(Circle((0, 0), 1, fill=False, color=GREY, lw=1.2))
        plane.plot(powers.real, powers.imag, ".-", ms=3, lw=0.6, color=SKY, label="λᵗ")
        plane.plot(
            [value.real] * 2, [value.imag, -value.imag], "x", ms=9, mew=2.2, color=RED, label="λ and its conjugate"
        )
        plane.set(xlim=(-1.4, 1.4), ylim=(-1.25, 1.25), aspect="equal", xlabel="Re", ylabel="Im", title="eigenvalue")
        series.plot(t, powers.real, color=BLUE, label="Re λᵗ")
        series.plot(t, modulus**t, color=ORANGE, ls="--", label="|λ|ᵗ")
        series.plot(t, -(modulus**t), color=ORANGE, ls="--")
        top = 1.25 * max(1, modulus**steps)
        horizon = math.log(eps) / math.log(modulus) if modulus < 1 else math.inf
        if horizon < steps:
            series.plot([horizon] * 2, [-top, top], color=GREY, ls=":", label=f"{100 * eps:g} % left")
        series.set(xlim=(0, steps), ylim=(-top, 1.5 * top), xlabel="step", ylabel="amplitude", title="trajectory")
        series.legend(loc="upper right", ncols=3, columnspacing=1, handlelength=1.5)
        shape.plot(x, mode.real, color=BLUE, label="Re u")
        shape.plot(x, mode.imag, color=GREEN, ls="--", label="Im u")
        shape.set(ylim=(-1.1, 1.7), xlabel="place on the string", ylabel="displacement", title="mode u")
        shape.legend(loc="upper right", ncols=2)
        motion = (powers[:, None] * mode).real
        size = max(1e-12, np.abs(motion).max())
        colours = colormaps["RdBu_r"].resampled(15)
        picture = film.imshow(
            motion.T,
            aspect="auto",
            origin="lower",
            extent=(-0.5, steps + 0.5, 0, 1),
            cmap=colours,
            vmin=-size,
            vmax=size,
        )
        film.set(xlabel="step", ylabel="place on the string", title="motion Re λᵗu")
        film.grid(False)
        figure.colorbar(picture, ax=film, label="displacement")
    return figure
