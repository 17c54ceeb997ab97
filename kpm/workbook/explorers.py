"""The four explorers of a trained model: exchange, drag a component, walk a hull, look at one mode.

Thin shells: `kpm.workbook.exploring` says what a move gives and `kpm.workbook.explorer_plots` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets
import torch
from ipywidgets import Dropdown, FloatSlider, Layout, ToggleButtons
from matplotlib.figure import Figure

from kpm.workbook import explorer_plots, exploring
from kpm.workbook.explorer_overviews import by_owner
from kpm.workbook.explorer_plots import Window
from kpm.workbook.gallery import REST, Gallery, look
from kpm.workbook.widgets import explorer, png

_STEPS = 200  # of a slider over a component's range
_CELL = "1 / 1 / 2 / 2"


def draw_swap(gallery: Gallery, i: int, j: int, what: str = "static") -> Figure:
    """Films `i` and `j` of the gallery, and both after they have exchanged `what`."""
    (one, aim), (other, back) = exploring.swapped(gallery, i, j, what), exploring.swapped(gallery, j, i, what)
    views = look(gallery, torch.cat([one, other]), [aim, back])
    a, b = gallery.numbers[i], gallery.numbers[j]
    thing = {"static": "static part", "dynamic": "dynamic part", REST: "the rest"}.get(what, what)
    names = [f"film {a}", f"film {b}", f"{a} with the\n{thing} of {b}", f"{b} with the\n{thing} of {a}"]
    if i == j:
        names[1], names[3] = f"film {b} again", "the same\nonce more"
    rows = dict(zip(names, (gallery.redrawn[i], gallery.redrawn[j], *views)))
    title = _title(gallery, f"exchanging {_named(gallery, what)}")
    return explorer_plots.plot_swap(rows, exploring.exchanged_factors(gallery, what), title)


def draw_channel(gallery: Gallery, i: int, component: int, value: float | None = None) -> Figure:
    """Film `i` before and after one static component was moved to `value` (by default: left as it is)."""
    own = float(gallery.values[i, component])
    moved = "as it is" if value is None else f"moved from {own:.2f} to {value:.2f}"
    value = own if value is None else value
    latents, aim = exploring.changed(gallery, i, component, value)
    after = look(gallery, latents, [aim])[0]
    label = f"value of {_component(gallery, component)}"
    title = _title(gallery, f"{_component(gallery, component)} {moved}")
    rows = {gallery.name(i): gallery.redrawn[i], f"at {value:.2f}": after}
    return explorer_plots.plot_channel(rows, gallery.values[:, component].cpu().numpy(), own, value, label, title)


def draw_hull(gallery: Gallery, a: int, b: int, c: int, first: float, second: float, what: str = "static") -> Figure:
    """A point between three films: the share of the first, and of what is left the share of the second."""
    weights = exploring.hull_weights(first, second)
    latents, aim = exploring.mixed(gallery, (a, b, c), weights, what)
    rows = {f"{letter}: {gallery.name(i)}": gallery.redrawn[i] for letter, i in zip("ABC", (a, b, c))}
    rows["mixture"] = look(gallery, latents, [aim])[0]
    shares = " + ".join(f"{w:.2f} {letter}" for w, letter in zip(weights, "ABC"))
    kept = {"static": ", moving as A", "dynamic": ", looking as A", "both": ""}[what]
    parts = {"both": "static and dynamic parts"}.get(what, f"{what} part")
    return explorer_plots.plot_hull(rows, weights, _title(gallery, f"{parts}: {shares}{kept}"))


def draw_mode(gallery: Gallery, i: int, mode: int, base: str = "static") -> Figure:
    """What one mode of film `i` decodes to on some ground, and the film without it."""
    found = exploring.modes(gallery, i)
    alone = exploring.single_mode(gallery, i, mode, base)
    rest = exploring.without_mode(gallery, i, mode)
    aim = {f: (k,) for f, k in gallery.labels(i).items()}
    ground = {"static": "static part\n+ mode", "mean": "mean of all\n+ mode", "nothing": "mode alone"}[base]
    if base == "static" and found.static[mode]:
        ground = "static part"
    views = look(gallery, torch.cat([alone, rest]), [aim, aim])
    rows = dict(zip((gallery.name(i), ground, "all but mode"), (gallery.redrawn[i], *views)))
    return explorer_plots.plot_mode(rows, _title(gallery, f"the mode of λ = {mode_name(found, mode)}"))


def swap_explorer(gallery: Gallery, i: int = 0, j: int = 1) -> ipywidgets.VBox:
    """Pick two films and what they exchange; see both afterwards and what the judge says."""
    return explorer(
        lambda i, j, what: draw_swap(gallery, i, j, what),
        i=_film(gallery, i, "first"),
        j=_film(gallery, j, "second"),
        what=ToggleButtons(
            options=[(_named(gallery, x).removeprefix("the "), x) for x in gallery.exchanges],
            description="exchange",
            style={"button_width": "auto"},
        ),
    )


def channel_explorer(gallery: Gallery, i: int = 0, component: int = 0) -> ipywidgets.VBox:
    """Pick a film and a static component, and drag its value over the range it has in all films."""
    film = _film(gallery, i, "film")
    names = [(_component(gallery, c), c) for c in by_owner(gallery)]
    channel = Dropdown(options=names, value=component, description="component")
    value = FloatSlider(readout_format=".2f", description="value", layout=Layout(width="420px"))

    def own() -> float:
        return float(gallery.values[film.value, channel.value])

    def fit(_: object = None) -> None:
        low, high = exploring.value_range(gallery, channel.value)
        with value.hold_trait_notifications():
            value.min, value.max, value.step = low, high, max(high - low, 1e-6) / _STEPS
            value.value = min(max(own(), low), high)

    def draw(i: int, component: int, value: float) -> Figure:
        low, high = exploring.value_range(gallery, component)
        unmoved = abs(value - own()) <= (high - low) / _STEPS  # a browser brings a slider to its nearest step
        return draw_channel(gallery, i, component, None if unmoved else value)

    film.observe(fit, "value")
    channel.observe(fit, "value")
    fit()
    return explorer(draw, i=film, component=channel, value=value)


def hull_explorer(gallery: Gallery, corners: Sequence[int] = (0, 1, 2)) -> ipywidgets.VBox:
    """Pick three films and walk the triangle between their static parts, their dynamic parts, or both."""
    a, b, c = (_film(gallery, i, letter) for i, letter in zip(corners, "ABC", strict=True))
    share = {"min": 0.0, "max": 1.0, "step": 0.01, "layout": Layout(width="380px")}
    share["style"] = {"description_width": "initial"}
    return explorer(
        lambda a, b, c, first, second, what: draw_hull(gallery, a, b, c, first, second, what),
        a=a,
        b=b,
        c=c,
        first=FloatSlider(1 / 3, description="share of A", **share),
        second=FloatSlider(0.5, description="B's share of the rest", **share),
        what=ToggleButtons(options=exploring.MIXED, description="mix", style={"button_width": "auto"}),
    )


def eigenvalue_explorer(gallery: Gallery, i: int = 0) -> ipywidgets.VBox:
    """Click an eigenvalue in the complex plane (or select it) and see what its mode decodes to.

    The eigenvalues are transparent buttons that lie over the picture of the plane.
    """
    film = _film(gallery, i, "film")
    mode = Dropdown(description="eigenvalue")
    base = ToggleButtons(
        options=[("the static part", "static"), ("the mean", "mean"), ("nothing", "nothing")],
        description="added to",
        style={"button_width": "auto"},
    )
    zoom = ToggleButtons(options=["whole plane", "near 1"], style={"button_width": "auto"})
    side = _px(explorer_plots.PLANE)
    plane = ipywidgets.Image(format="png", layout=Layout(grid_area=_CELL, width=side, margin="0"))
    board = ipywidgets.GridBox(layout=Layout(width=side, min_width=side, height=side, overflow="hidden"))
    shown: list = [None, None]  # what the buttons were made for, and the picture

    def mark(_: object = None) -> None:
        if mode.value is None or shown[1] == (now := (film.value, mode.value, zoom.value)):
            return
        found = exploring.modes(gallery, film.value)
        values, static = found.eigenvalues.numpy(), found.static.numpy()
        window = Window.near_one(values[static]) if zoom.value == "near 1" else Window.whole(values)
        if shown[0] != (values.tolist(), window):
            _, *old = board.children or [plane]
            board.children = [plane, *_buttons(found, mode, window)]
            for button in old:
                button.close()
        plane.value = png(explorer_plots.plot_plane(values, static, mode.value, window))
        shown[:] = (values.tolist(), window), now

    def choose(_: object = None) -> None:
        found = exploring.modes(gallery, film.value)
        mode.options = [(mode_name(found, k), k) for k in range(len(found.eigenvalues))]
        mode.value = 0
        mark()

    film.observe(choose, "value")
    for control in (mode, zoom):
        control.observe(mark, "value")
    choose()
    sheet = explorer(lambda i, mode, base: draw_mode(gallery, i, mode, base), i=film, mode=mode, base=base)
    row, trouble, picture = sheet.children
    both = ipywidgets.Box(
        [ipywidgets.VBox([zoom, board]), picture], layout=Layout(flex_flow="row wrap", align_items="flex-start")
    )
    return ipywidgets.VBox([row, trouble, both])


def mode_name(found: exploring.Modes, k: int) -> str:
    """An eigenvalue as text, a conjugate pair with both signs."""
    value = complex(found.eigenvalues[k])
    text = f"{value.real:.3f}" + (f" ± {value.imag:.3f}i" if value.imag else "")
    return text + (" (static)" if found.static[k] else "")


def _buttons(found: exploring.Modes, mode: Dropdown, window: Window) -> list[ipywidgets.Button]:
    """A button over each eigenvalue and its conjugate; they and the picture share one cell of the grid."""
    size, buttons = 18, []
    for k, value in enumerate(found.eigenvalues.tolist()):
        for place in dict.fromkeys((value, value.conjugate())):
            x, y = (round(p - size / 2) for p in window.pixel(place))
            if not (0 <= x <= explorer_plots.PLANE - size and 0 <= y <= explorer_plots.PLANE - size):
                continue
            spot = {"grid_area": _CELL, "align_self": "flex-start", "padding": "0", "margin": f"{y}px 0 0 {x}px"}
            button = ipywidgets.Button(
                layout=Layout(width=_px(size), height=_px(size), **spot),
                tooltip=f"λ = {mode_name(found, k)}",
                style={"button_color": "transparent"},
            )
            button.on_click(lambda _, k=k: setattr(mode, "value", k))
            buttons.append(button)
    return buttons


def _film(gallery: Gallery, i: int, name: str) -> Dropdown:
    options = [(gallery.describe(k), k) for k in range(len(gallery))]
    return Dropdown(options=options, value=i, description=name, layout=Layout(width="470px"))


def _component(gallery: Gallery, component: int) -> str:
    owner = gallery.owner(component) if gallery.partition else REST
    return f"{gallery.kind} {component}" + (f" ({owner})" if owner != REST else "")


def _named(gallery: Gallery, what: str) -> str:
    kinds = "axes" if gallery.kind == "axis" else f"{gallery.kind}s"
    parts = {"static": "the static part", "dynamic": "the dynamic part", REST: f"the other {kinds}"}
    return parts.get(what) or f"the {kinds} of {what}"


def _title(gallery: Gallery, text: str) -> str:
    return f"{gallery.data.name} ({gallery.data.source}): {text}"


def _px(size: float) -> str:
    return f"{size:.0f}px"
