"""Interactive pictures: controls around a pure function from values to a `Figure`."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets
from matplotlib.figure import Figure

from kpm.workbook.session import render


def explorer(plot: Callable[..., Figure], **controls: ipywidgets.Widget) -> ipywidgets.VBox:
    """Controls above the picture that `plot` makes of their values; it is redrawn when one of them changes.

    Parameters
    ----------
    plot : callable
        Called with one keyword argument per control.
    **controls : Widget
        ipywidgets with a ``value``; give sliders ``continuous_update=False``, since every value is drawn.

    Notes
    -----
    The picture is one image whose bytes are replaced, so nothing flickers and the last picture is stored with the
    notebook. What goes wrong in `plot` is shown in place of the picture instead of being lost in a log.
    """
    picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))
    trouble = ipywidgets.HTML()

    def draw(_: object = None) -> None:
        try:
            picture.value = render(plot(**{name: control.value for name, control in controls.items()}))
            trouble.value = ""
        except (ValueError, ArithmeticError, IndexError) as error:
            trouble.value = f"<pre>{type(error).__name__}: {error}</pre>"

    for control in controls.values():
        control.observe(draw, "value")
    draw()
    row = ipywidgets.Box(list(controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
    return ipywidgets.VBox([row, trouble, picture])
