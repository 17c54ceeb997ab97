"""Interactive pictures: controls around a pure function from values to a `Figure`."""

from __future__ import annotations

import html
import io
from collections.abc import Callable

import ipywidgets
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from kpm.workbook import plots


def explorer(plot: Callable[..., Figure], **controls: ipywidgets.Widget) -> ipywidgets.VBox:
    """Controls above the picture that `plot` makes of their values; it is redrawn when one of them changes.

    Parameters
    ----------
    plot : callable
        Called with one keyword argument per control.
    **controls : Widget
        ipywidgets with a ``value``; give sliders ``continuous_update=False`` where `plot` takes more than a tenth of a
        second, since every value is drawn.

    Notes
    -----
    The picture is one image whose bytes are replaced, so nothing flickers and the last picture is stored with the
    notebook. What goes wrong in `plot` is shown in place of the picture instead of being lost in a log.
    """
    # As large as it is drawn, or as there is room; with its usual margin it would be a little larger than that.
    place = ipywidgets.Layout(max_width="100%", align_self="flex-start", margin="0")
    picture = ipywidgets.Image(format="png", layout=place)
    trouble = ipywidgets.HTML()
    drawn: dict | None = None

    def draw(_: object = None) -> None:
        nonlocal drawn
        values = {name: control.value for name, control in controls.items()}
        if values == drawn:  # a control that sets another one calls twice
            return
        drawn = values
        try:
            picture.value = png(plot(**values))
            trouble.value = ""
        except (ValueError, ArithmeticError, IndexError) as error:
            trouble.value = f"<pre>{type(error).__name__}: {html.escape(str(error))}</pre>"

    for control in controls.values():
        control.observe(draw, "value")
    draw()
    row = ipywidgets.Box(list(controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
    return ipywidgets.VBox([row, trouble, picture])


def png(figure: Figure, colours: int = 128) -> bytes:
    """PNG bytes of a figure, reduced to a palette coarsely: larger than `kpm.workbook.session.render`'s, and faster."""
    with plots.style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    picture = Image.fromarray(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    buffer = io.BytesIO()
    picture.quantize(colours, method=Image.Quantize.FASTOCTREE).save(buffer, format="png")
    return buffer.getvalue()
