"""How all figures look: widths, letters, an encoder's colour, symbol and line, labels at the ends of lines."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results.palette import LIGHT, OTHER_LIGHT, colour_numbers

PAPER_IN, COLUMN_IN = 7.16, 3.5
"""Widths: two columns of a paper, one column of it or a phone's screen."""
DPI = 200
INK, SOFT, FAINT = "#1a1d21", "#5d636b", "#b9bec4"
"""Text and axes, what is said beside, what stays in the background."""
SYMBOLS = ("o", "s", "^", "D", "v", "P", "X", "p")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (9, 2)), "-", "-", "-")
"""Of the lines of encoders, beside their colours: in grey they are told apart by symbol and dash."""

LOOK: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.6,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "grid.color": "#e3e5e8",
    "grid.linewidth": 0.5,
    "text.parse_math": False,  # what stands in a study's files is no mathematics
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "mammosearch",
}

P = ParamSpec("P")


def drawn(draw: Callable[P, Figure | None]) -> Callable[P, Figure | None]:
    """Give a drawing function the look, whatever the caller's own settings of matplotlib are."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure | None:
        with mpl.rc_context(LOOK):
            return draw(*args, **kwargs)

    return inside


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches, drawn without a display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.05)  # type: ignore[union-attr, call-arg]
    return figure


def narrow(width: float) -> bool:
    """Whether panels stand below each other instead of side by side."""
    return width < 5


def encoded(figure: Figure, file_format: str) -> bytes:
    """A figure as the bytes of a `png` or `svg` file: the same figure, the same bytes."""
    buffer = io.BytesIO()
    nothing = {"Software": None} if file_format == "png" else {"Date": None}
    with mpl.rc_context(LOOK):
        figure.savefig(buffer, format=file_format, dpi=DPI, metadata=nothing)
    return buffer.getvalue()


@dataclass(frozen=True)
class Mark:
    """How an encoder is drawn."""

    colour: str
    symbol: str
    dash: Any


def marks_of(encoders: Iterable[str]) -> dict[str, Mark]:
    """Every encoder's colour, symbol and dash; one of the paper's always has the same."""
    numbers = colour_numbers(encoders)
    return {
        name: Mark(OTHER_LIGHT, ".", "-") if n is None else Mark(LIGHT[n], SYMBOLS[n % 8], DASHES[n % 8])
        for name, n in numbers.items()
    }


def end_labels(axis: Axes, ends: Sequence[tuple[float, float, str, str]], *, size: float = 7) -> None:
    """Write names at the ends of lines, moved apart where they would overlap.

    Args:
        axis: its limits are final.
        ends: (x, y, text, colour) of each line's end.
        size: of the letters, in points.
    """
    low, high = axis.get_ylim()
    height_in = axis.get_window_extent().height / axis.get_figure(root=True).dpi  # type: ignore[union-attr]
    step = 1.25 * size / 72 / max(height_in, 0.3)
    wanted = sorted(((y - low) / (high - low), x, y, text, colour) for x, y, text, colour in ends)
    places: list[float] = []
    for place, *_ in wanted:
        places.append(max(place, places[-1] + step) if places else max(place, 0.0))
    over = places[-1] - 1.0 if places else 0.0
    if over > 0:  # push down from the top what was pushed out above it
        for index in reversed(range(len(places))):
            limit = 1.0 if index == len(places) - 1 else places[index + 1] - step
            places[index] = min(places[index], limit)
    for place, (_, x, y, text, colour) in zip(places, wanted, strict=True):
        axis.annotate(
            text,
            xy=(x, y),
            xytext=(1.02, place),
            textcoords="axes fraction",
            color=colour,
            fontsize=size,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": colour, "shrinkA": 0, "shrinkB": 1},
        )


def light_grid(axis: Axes, which: str = "y") -> None:
    """Hairlines behind the data."""
    axis.grid(visible=True, axis=which)  # type: ignore[arg-type]
    axis.set_axisbelow(True)


def whole_numbers(axis: Axes) -> None:
    """Ticks of the x axis at whole numbers alone."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
