"""Plots as SVG that takes the page's colours and its letters."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from markupsafe import Markup

from converters.describe import Histogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Options = ParamSpec("Options")

# Drawn in these, so that each can become a variable of the page's style, light or dark.
TEXT, SOFT, RULE, ACCENT, PAGE, HEAT = (f"#0{n}0{n}0{n}" for n in range(1, 7))
_VARIABLES = {
    TEXT: "var(--text)",
    SOFT: "var(--soft)",
    RULE: "var(--rule)",
    ACCENT: "var(--accent)",
    PAGE: "var(--page)",
    HEAT: "rgb(var(--error))",
}
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "maskzoo",  # the same plot has the same bytes
    "text.parse_math": False,  # a class may be called $x$
    "font.size": 9.5,
    "text.color": TEXT,
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
}
_POINTS_PER_INCH = 72
_ROW = 15.0
_CELL = 30.0
_DARK = 0.38
_LONGEST_NAME = 10


def _styled(plot: Callable[Options, Markup]) -> Callable[Options, Markup]:
    """Draw in our style, and leave matplotlib's settings as they were."""

    @wraps(plot)
    def draw(*args: Options.args, **kwargs: Options.kwargs) -> Markup:
        import matplotlib as mpl

        with mpl.rc_context(_STYLE):
            return plot(*args, **kwargs)

    return draw


@_styled
def plot_ranges(rows: Mapping[str, Sequence[float]], axis: str, *, width: float = 760.0) -> Markup:
    """Draw a row for each class: 5 to 95 % as a line, the middle half as a bar, the median.

    Args:
        rows: name -> least, 5 %, 25 %, median, 75 %, 95 %, most; above 0, on a logarithmic axis.
        axis: what the numbers are.
        width: in points.
    """
    figure, axes = _figure(width, _ROW * len(rows) + 60)
    for place, (_, low, left, middle, right, high, _) in enumerate(rows.values()):
        axes.plot([low, high], [place, place], color=SOFT, linewidth=1)
        axes.barh(place, right - left, 0.62, left=left, color=ACCENT, alpha=0.35, linewidth=0)
        axes.plot([middle], [place], "o", color=ACCENT, markersize=4.5)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(axis="y", labelcolor=TEXT)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", linewidth=0.8)
    axes.set_xlabel(axis)
    _plain_numbers(axes)
    return _svg(figure)


@_styled
def plot_boxes(
    rows: Mapping[str, Sequence[Sequence[float]]], series: Sequence[str], *, width: float = 900.0
) -> Markup:
    """Draw a row for each class with a box plot of Dice a series, the first one in colour.

    Boxes and whiskers are Tukey's (Exploratory Data Analysis, 1977, chapter 2). The axis is
    logarithmic in 1 - Dice, so that .98 and .99 are as far apart as .6 and .8.

    Args:
        rows: class name -> one list of Dice values (0..1) a series.
        series: their names.
        width: in points.
    """
    from matplotlib.patches import Patch

    figure, axes = _figure(width, (6 + 11 * len(series)) * len(rows) + 80)
    tones = (ACCENT, SOFT)[: len(series)]
    for k, found in enumerate(rows.values()):
        for i, (values, tone) in enumerate(zip(found, tones, strict=True)):
            _draw_box(axes, values, k + (i - (len(tones) - 1) / 2) * 0.4, tone)
    axes.set_xscale("log")
    top = max(min(v, _TOP_DICE) for found in rows.values() for part in found for v in part)
    axes.set_xlim(1.15, 0.85 * (1 - top))
    ticks = [v for v in _DICE_TICKS if v <= top]
    axes.set_xticks([1 - v for v in ticks], [f"{v:g}" for v in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(axis="y", labelcolor=TEXT)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", linewidth=0.8)
    axes.set_xlabel("Dice")
    handles = [Patch(facecolor=t, alpha=0.6, label=n) for t, n in zip(tones, series, strict=False)]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=len(handles),
        frameon=False,
        labelcolor=TEXT,
    )
    return _svg(figure)


_TOP_DICE = 0.998
_DICE_TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


def _draw_box(axes: Any, values: Sequence[float], place: float, tone: str) -> None:
    from matplotlib.cbook import boxplot_stats

    (found,) = boxplot_stats(values)
    low, left, middle, right, high = (
        1 - min(found[key], _TOP_DICE) for key in ("whislo", "q1", "med", "q3", "whishi")
    )
    axes.plot([low, high], [place, place], color=tone, linewidth=1)
    axes.barh(place, right - left, 0.3, left=left, color=tone, alpha=0.55, linewidth=0)
    axes.plot([middle, middle], [place - 0.16, place + 0.16], color=TEXT, linewidth=1.6)
    beyond = [1 - min(v, _TOP_DICE) for v in found["fliers"]]
    axes.plot(beyond, [place] * len(beyond), "o", color=tone, markersize=2.6, markeredgewidth=0)


def _plain_numbers(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


@_styled
def plot_matrix(names: Sequence[str], values: Sequence[Sequence[float | None]]) -> Markup:
    """Draw a square of shares, 0 to 1, the darker the more; cells above .005 say their number."""
    from matplotlib.patches import Rectangle

    side = _CELL * len(names)
    figure, axes = _figure(side + 90, side + 90)
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if value is None or value < 0.005:
                continue
            place = (column - 0.5, row - 0.5)
            axes.add_patch(
                Rectangle(place, 1, 1, color=HEAT, alpha=min(1.0, 0.08 + 1.4 * value), lw=0)
            )
            tone = PAGE if value > _DARK else TEXT
            said = f"{value:.2f}".removeprefix("0")
            axes.text(column, row, said, ha="center", va="center", fontsize=8.5, color=tone)
    axes.set_xticks(range(len(names)), list(names), rotation=55, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), list(names))
    axes.tick_params(labelcolor=TEXT)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    for i in range(len(names) + 1):
        axes.axhline(i - 0.5, color=RULE, linewidth=0.6)
        axes.axvline(i - 0.5, color=RULE, linewidth=0.6)
    axes.spines[:].set_visible(False)
    return _svg(figure)


@_styled
def plot_histogram(
    histogram: Histogram,
    title: str,
    axis: str,
    *,
    noun: str = "images",
    threshold: float | None = None,
    threshold_text: str = "",
    width: float = 360.0,
) -> Markup:
    """Draw a histogram; a dashed line and its text mark a threshold."""
    figure, axes = _figure(width, 230)
    widths = [b - a for a, b in zip(histogram.edges, histogram.edges[1:], strict=False)]
    _bars(axes, histogram.edges[:-1], histogram.counts, widths, align="edge")
    if threshold is not None:
        axes.axvline(threshold, color=TEXT, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            threshold_text,
            (threshold, 1),
            xytext=(5, -1),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            va="top",
            color=TEXT,
        )
    _count_axis(axes, noun)
    axes.set_xlabel(axis)
    axes.set_title(title)
    return _svg(figure)


@_styled
def plot_counts(counts: Mapping[str, int], title: str, noun: str, width: float = 360.0) -> Markup:
    """Draw a bar for each of a few values."""
    figure, axes = _figure(width, 230)
    _bars(axes, range(len(counts)), list(counts.values()), 0.6)
    short = [n if len(n) <= _LONGEST_NAME else n[: _LONGEST_NAME - 1] + "…" for n in counts]
    axes.set_xticks(range(len(counts)), short)
    axes.tick_params(axis="x", labelcolor=TEXT)
    axes.set_xlim(-0.8, len(counts) - 0.2)
    _count_axis(axes, noun)
    axes.set_title(title)
    return _svg(figure)


def _bars(axes: Any, *places: Any, **options: Any) -> None:
    # The page's colour first, so that the grid does not shine through.
    for color, alpha in ((PAGE, 1.0), (ACCENT, 0.6)):
        axes.bar(*places, color=color, alpha=alpha, edgecolor=PAGE, linewidth=1, **options)


def _count_axis(axes: Any, noun: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="y", linewidth=0.8)
    axes.set_ylabel(noun)
    axes.spines["left"].set_visible(False)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    size = (width / _POINTS_PER_INCH, height / _POINTS_PER_INCH)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> Markup:
    """Return a figure as an SVG element without links, names and colours of its own."""
    file = io.StringIO()
    with warnings.catch_warnings():
        # The reader's fonts draw the text, not those that its room is measured by.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (xmlns(:\w+)?|version)="[^"]*"', "", text)
    # Names such as `axes_1` would occur once in every plot of the page.
    text = re.sub(r' id="[\w.]+_\d+"', "", text).replace("xlink:href", "href")
    # The page's letters; which way matplotlib names its own depends on its version.
    text = re.sub(r"font: (?:[\w-]+ )*?([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r" ?font-family: [^;\"]*;?", "", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return Markup(text)
