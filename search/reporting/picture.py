"""Draws the front: every measured trial, the feasible ones filled, the front as a line with labels."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from objectives.metrics import METRICS
from search.front.front import ParetoFront
from search.reporting.formatting import Row, heading, label, prefix_of, score
from search.reporting.tables import is_unscored

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

_FRONT, _FEASIBLE, _GREY, _STAR = "#0b6e8a", "#6fb3c6", "#9aa3ab", "#d9541e"
_OFFSETS = (
    (7, 7),
    (7, -13),
    (-7, 7),
    (-7, -13),
    (0, 14),
    (0, -20),
    (14, 18),
    (14, -24),
    (-14, 18),
    (-14, -24),
)


_GROUPS: tuple[tuple[str, Callable[[Row], bool], dict[str, Any]], ...] = (
    (
        "below the accuracy floor",
        lambda p: not p["feasible"] and not is_unscored(p),
        {"facecolors": "none", "edgecolors": _GREY, "s": 26},
    ),
    (
        "dominated, not scored",
        is_unscored,
        {"marker": "x", "color": _GREY, "s": 20, "linewidths": 1},
    ),
    ("feasible", lambda p: p["feasible"] and not p["on_front"], {"color": _FEASIBLE, "s": 26}),
    ("Pareto front", lambda p: bool(p["on_front"]), {"color": _FRONT, "s": 46, "zorder": 4}),
    (
        "baseline",
        lambda p: bool(p["is_baseline"]),
        {"marker": "D", "facecolors": "none", "edgecolors": "#222222", "s": 90, "zorder": 5},
    ),
    (
        "recommended",
        lambda p: bool(p["recommended"]),
        {"marker": "*", "color": _STAR, "edgecolors": "white", "s": 300, "zorder": 6},
    ),
)


def draw(
    rows: Sequence[Row], front: ParetoFront, searched: Sequence[str], title: str, rate: str, asked: str = ""
) -> bytes:
    """Draw the first two objectives as a PNG (accuracy stands in for a second one that is missing).

    ``asked``: the floors of several tasks, in words.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = (*front.objectives, "accuracy")[:2]
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a title in a script that the font lacks is no reason to fail
        points = _points(rows, names, rate)
        _scatter(axes, points, front)
        floor = asked or f"accuracy ≥ {score(front.floor)}"
        _dress(axes, points, names, f"{title}: {floor}", rate)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # keep what the layout found: labels are placed by its pixels
        _label_front(axes, points, front, searched)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _points(rows: Sequence[Row], names: Sequence[str], rate: str) -> list[dict[str, Any]]:
    keys = [METRICS[name].column for name in names]
    measured = [row for row in rows if all(row.get(key) is not None for key in keys) and row["cached_from"] is None]
    sizes = [_scale(measured, name, rate)[0] for name in names]
    return [{**row, "at": tuple(row[key] / size for key, size in zip(keys, sizes))} for row in measured]


def _scale(rows: Sequence[Row], name: str, rate: str) -> tuple[float, str]:
    largest = max((abs(row[METRICS[name].column]) for row in rows), default=0.0)
    scale = prefix_of(name, largest, rate)
    return scale.size, scale.unit


def _scatter(axes: Axes, points: Sequence[Row], front: ParetoFront) -> None:
    for name, belongs, style in _GROUPS:
        members = [point for point in points if belongs(point)]
        if members:
            x, y = zip(*(point["at"] for point in members))
            axes.scatter(x, y, label=name, **style)
    line = sorted(point["at"] for point in points if point["on_front"])
    if len(front.objectives) == 2 and len(line) > 1:
        # Beyond a front point the next value is reached only where the next point is.
        side: Literal["pre", "post"] = "pre" if METRICS[front.objectives[0]].higher_is_better else "post"
        x, y = zip(*line)
        axes.step(x, y, where=side, color=_FRONT, linewidth=1.4, alpha=0.6, zorder=3)


def _dress(axes: Axes, points: Sequence[Row], names: Sequence[str], title: str, rate: str) -> None:
    axes.set_xlabel(_axis_title(points, names[0], rate))
    axes.set_ylabel(_axis_title(points, names[1], rate))
    axes.set_title(title, loc="left", weight="bold", parse_math=False)
    axes.grid(color="#e6e9ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.09)
    across = [point["at"][0] for point in points]
    if points and 0 < 8 * min(across) < max(across):  # the same rule as in the page
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    if points:
        axes.legend(frameon=False, fontsize=8, loc="best")
    else:
        axes.text(0.5, 0.5, "nothing was measured", transform=axes.transAxes, ha="center", color=_GREY)


def _axis_title(points: Sequence[Row], name: str, rate: str) -> str:
    unit = _scale(points, name, rate)[1]
    better = "higher" if METRICS[name].higher_is_better else "lower"
    return f"{heading(name)}{f' [{unit}]' if unit else ''}, {better} is better"


def _label_front(axes: Axes, points: Sequence[Row], front: ParetoFront, searched: Sequence[str]) -> None:
    """Name front points, the recommended first, at the first offset where the words touch nothing."""
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken = [axes.transData.transform(point["at"]) for point in points]
    legend = axes.get_legend()
    boxes = [legend.get_window_extent(renderer)] if legend else []
    inside = axes.get_window_extent(renderer)
    for point in sorted((p for p in points if p["on_front"]), key=lambda p: not p["recommended"]):
        for offset in _OFFSETS:
            words = _annotate(axes, label(point, searched), point["at"], offset)
            box = words.get_window_extent(renderer).padded(2)
            touches = any(box.overlaps(b) for b in boxes) or any(box.contains(*at) for at in taken)
            if not touches and inside.contains(*box.min) and inside.contains(*box.max):
                boxes.append(box)
                break
            words.remove()


def _annotate(axes: Axes, text: str, at: tuple[float, float], offset: tuple[int, int]) -> Annotation:
    from matplotlib.patheffects import withStroke

    side = "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
    words = axes.annotate(text, at, offset, textcoords="offset points", fontsize=7.5, ha=side, color="#1d2a33")
    words.set_parse_math(False)
    words.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    return words
