"""Shaded texts show what they are given, safely, on any page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from kpm.workbook import shaded_text as shaded
from kpm.workbook.shaded_text import colour, plot_shaded_text, shade, text_explorer


class Page(HTMLParser):
    """Text, and the style and hint of each piece of it."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.pieces, self.tags = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append((tag, dict(attrs)))
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        spans = [attrs for tag, attrs in self.open if tag == "span"]
        self.pieces.append((data, spans[-1] if spans else {}))

    def of(self, word):
        return next(attrs for data, attrs in self.pieces if data == word)


def alpha(attrs) -> float:
    return float(re.search(r"rgba\(\d+,\d+,\d+,([\d.]+)\)", attrs["style"]).group(1))


def test_shares_of_the_darkest_shade():
    np.testing.assert_allclose(shade([1, -4, 2]), [0.25, -1, 0.5])
    np.testing.assert_allclose(shade([1, -4, 2], limit=2), [0.5, -1, 1])
    np.testing.assert_allclose(shade([0.0, 0.0]), [0, 0])
    np.testing.assert_allclose(shade([3, 1.5], kind="magnitude"), [1, 0.5])
    assert shade([]).shape == (0,)
    with pytest.raises(ValueError, match=r"values\[1\] is not finite"):
        shade([0, np.nan])
    with pytest.raises(ValueError, match=r"values\[1\] is negative"):
        shade([0, -1], kind="magnitude")
    with pytest.raises(ValueError, match="limit: expected a positive number"):
        shade([1], limit=0)
    with pytest.raises(ValueError, match="kind: expected"):
        shade([1], kind="both")


def test_words_are_shaded_by_their_numbers_and_escaped():
    words = ["good", "<script>alert(1)</script>", "bad", "&amp;", '"so"']
    page = Page(shaded.shaded_text(words, [2.0, 0.0, -1.0, 0.5, 0.0], title="<b>", label="λ & jump"))
    assert "script" not in page.tags and "<script>alert(1)</script>" in [data for data, _ in page.pieces]
    assert [alpha(page.of(word)) for word in ("good", "bad", "&amp;")] == [1, 0.5, 0.25]
    assert "style" not in page.of('"so"') and page.of("good")["title"] == "2" and page.of("bad")["title"] == "-1"
    assert "rgba(0,114,178," in page.of("good")["style"] and "rgba(213,94,0," in page.of("bad")["style"]
    text = "".join(data for data, _ in page.pieces)
    assert text.startswith("<b>good <script>") and "-2" in text and "2 λ & jump" in text
    assert {"style", "script", "link"}.isdisjoint(page.tags)  # nothing but inline styles: kept where scripts are not
    assert page.tags.count("b") == 1  # the strongest word stands out where colours are taken away


def test_the_legend_begins_with_zero_for_magnitudes():
    page = Page(shaded.shaded_text(["a", "b"], [1.0, 4.0], kind="magnitude", limit=8.0))
    text = "".join(data for data, _ in page.pieces).replace("\xa0", "")
    assert re.sub(r"\s+", " ", text) == "a b0 8" and "-" not in text


def luminance(rgb) -> float:
    """WCAG 2 relative luminance."""
    rgb = np.asarray(rgb, dtype=float)
    return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def contrast(a, b) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("page", "ink"), [("#ffffff", "#111111"), ("#111111", "#eeeeee"), ("#1e1e1e", "#dddddd"), ("#0d1117", "#e6edf3")]
)
def test_every_shade_can_be_read_on_light_and_dark_pages(page, ink):
    for share in np.linspace(-1, 1, 201):
        attrs = Page(shaded.shaded_text(["a", "b"], [share, 1.0], limit=1.0)).of("a")
        style = dict(part.split(":") for part in attrs.get("style", "background-color:rgba(0,0,0,0)").split(";"))
        *rgb, part = map(float, re.findall(r"[\d.]+", style["background-color"]))
        background = part * np.array(rgb) / 255 + (1 - part) * np.array(to_rgb(page))
        assert contrast(background, to_rgb(style.get("color", ink))) > 3.5, share
        assert contrast(*map(to_rgb, colour(share))) > 4.5, share  # the picture's, on white


def test_signs_differ_for_colour_blind_eyes():
    """Seen without red or without green cones the two ends are still far apart (Viénot, Brettel, Mollon 1999)."""
    blue, red = (np.array(to_rgb(colour(share)[0])) ** 2.2 for share in (1, -1))
    lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    for blind in ([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]):
        see = np.linalg.inv(lms) @ np.array(blind) @ lms
        assert np.linalg.norm(see @ blue - see @ red) > 0.3


def test_the_picture_wraps_and_shades():
    words = ["alpha"] * 40 + ["$x^2$", "y" * 300]
    values = np.r_[np.zeros(40), 3.0, -1.5]
    figure = plot_shaded_text(words, values, title="Review $5", label="jump", columns=60)
    ax = figure.axes[0]
    texts = ax.texts
    assert [t.get_text() for t in texts[:40]] == ["alpha"] * 40 and texts[40].get_text() == "$x^2$"
    assert all(t.get_position()[0] + len(t.get_text()) <= 60 for t in texts)
    assert len({t.get_position()[1] for t in texts}) == 6  # ten words of six characters to a line, then the long one
    assert len(ax.patches) == 2 and ax.patches[0].get_facecolor()[:3] == pytest.approx(to_rgb(colour(1)[0]))
    assert ax.patches[1].get_facecolor()[:3] == pytest.approx(to_rgb(colour(-0.5)[0]), abs=0.003)
    assert figure.axes[1].get_xlim() == (-3, 3)
    figure.canvas.draw()
    box = ax.get_window_extent()
    assert all(box.x0 - 2 <= t.get_window_extent().x0 and t.get_window_extent().x1 <= box.x1 + 6 for t in texts)
    short = plot_shaded_text(words, values, most=10)
    assert short.axes[0].texts[-1].get_text() == "… and 32 words more"
    with pytest.raises(ValueError, match=r"values: expected one per word, \(42,\)"):
        plot_shaded_text(words, values[:5])
    with pytest.raises(ValueError, match="columns"):
        plot_shaded_text(words, values, columns=3)


def test_the_widget_shows_the_chosen_text_and_modes():
    texts = [["good", "film"], ["bad", "film", "<i>"]]

    def look(review, modes, kind):
        if modes == (1,):
            raise ValueError("no <such> mode")
        return np.arange(len(texts[review])) * len(modes) * (1 if kind == "magnitude" else -1)

    box = text_explorer(texts, look, ["λ 1", "λ 2"], titles=["first", "second"], limit=lambda modes, kind: 4.0)
    choice, modes, kind = box.children[0].children
    page = box.children[1]
    assert "good" in page.value and alpha(Page(page.value).of("film")) == 0.25 and "213,94,0" in page.value
    choice.value, kind.value = 1, "magnitude"
    assert alpha(Page(page.value).of("<i>")) == 0.5 and "magnitude in λ 1" in page.value and "1: second" in page.value
    modes.value = (0, 1)
    assert alpha(Page(page.value).of("<i>")) == 1 and "λ 1, λ 2" in page.value
    modes.value = (1,)
    assert page.value == "<pre>ValueError: no &lt;such&gt; mode</pre>"
    modes.value = ()
    assert "no mode" in page.value
