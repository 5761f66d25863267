# Same as faster_rcnn/src/model_utils/evaluation/plots.py
"""Plots: precision-recall curves of an evaluation; losses, learning rate and AP of a training run.

matplotlib is imported inside the functions, since importing it is slow. It draws without a display.
"""
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...model import LOSS_SUMS
from ..config import InputError
from ..files import printable, replacing
from .coco_scores import IOU_THRESHOLDS, RECALLS, Scores

INK, PALE = "#222222", "#8a8f98"
# Distinguishable with colour vision deficiency.
LINES = ("#0b6bcb", "#e4572e", "#1b9e77", "#a05eb5", "#d9a400", "#00a1b0", "#c2185b", "#6b8e23", "#7a5c3e", "#5b6abf")
EXTREMES = 5            # with more than twice as many classes, only so many best and worst classes are drawn
VALIDATION = "val_"     # prefix of the losses on the validation set
MOST_POINTS = 150       # maximum number of points of a training curve; more are averaged in groups


class Series(NamedTuple):
    """The points of a curve."""

    x: list[float]
    y: list[float]


def plot_pr_curves(scores: Scores, png: Path | str) -> Path:
    """Plot precision over recall: the mean of all classes at several IoU thresholds, and each class at IoU 0.50.

    Of more than 2 * EXTREMES classes, only the best and the worst are drawn.

    Args:
        scores: COCO scores with their precision array.
        png: the file to write.

    Returns:
        The path of the file.

    Raises:
        ValueError: the scores have no precision array.
    """
    if scores.precision is None:
        raise ValueError("scores.precision is None: only the scores of coco_ap have curves")
    precision = np.where(scores.precision < 0, np.nan, scores.precision)            # (T, R, K)
    shown = np.flatnonzero(~np.isnan(precision[0]).all(0))
    figure, (left, right) = _figure(1, 2, (13, 4.4))
    title = {"bbox": "Boxes", "segm": "Masks"}[scores.iou_type]
    _style(left, f"{title}: mean of {len(shown)} class{'es' if len(shown) != 1 else ''}", "recall", "precision")
    _style(right, _classes_title(len(shown)), "recall", "precision")
    for axes in (left, right):
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
    if len(shown):
        means = np.nanmean(precision[:, :, shown], 2)                               # (T, R)
        for t, colour in ((0, LINES[0]), (5, LINES[5]), (8, LINES[4])):
            label = f"IoU {IOU_THRESHOLDS[t]:.2f}   {means[t].mean():.3f}"
            left.plot(RECALLS, means[t], color=colour, lw=1.8, label=label)
        left.plot(RECALLS, means.mean(0), color=INK, lw=2.4, label=f"IoU 0.50:0.95   {means.mean():.3f}")
        names = list(scores.per_class)
        for i, (k, style) in enumerate(_pick(precision[0], shown)):
            right.plot(RECALLS, precision[0, :, k], color=LINES[i % len(LINES)], lw=1.6, ls=style,
                       label=f"{_label(names[k])}   {precision[0, :, k].mean():.3f}")
        right.plot(RECALLS, means[0], color=INK, lw=2.4, label=f"mean   {means[0].mean():.3f}")
        for axes, heading in ((left, "AP"), (right, "AP50")):
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.01), title=heading, **_LEGEND)
    else:
        for axes in (left, right):
            axes.text(0.5, 0.5, "no objects in the ground truth", ha="center", color=PALE)
    return _save(figure, png)


_LEGEND = {"frameon": False, "fontsize": 9, "title_fontsize": 9, "alignment": "left"}


def _classes_title(count: int) -> str:
    return "Classes at IoU 0.50" + (f": best and worst {EXTREMES} of {count}" if count > 2 * EXTREMES else "")


def _pick(precision: np.ndarray, shown: np.ndarray) -> list[tuple[int, str]]:
    """Return (class index, line style) of the classes to draw, best first. With many classes, the worst are dotted."""
    order = shown[np.argsort(-precision[:, shown].mean(0), kind="stable")].tolist()
    if len(order) <= 2 * EXTREMES:
        return [(k, "-") for k in order]
    return [(k, "-") for k in order[:EXTREMES]] + [(k, ":") for k in order[-EXTREMES:]]


def plot_training(metrics_jsonl: Path | str, png: Path | str) -> Path:
    """Plot losses, learning rate and AP over steps, or over epochs if no line has a `step`.

    Args:
        metrics_jsonl: file with one JSON object per line. `*_loss`, `lr`, and AP, AP50 and AP75 are plotted, the latter at
            the top level or under `bbox` and `segm`.
        png: the file to write.

    Returns:
        The path of the file.

    Raises:
        InputError: the file is missing, is not JSON Lines or has nothing to plot.
    """
    rows = read_jsonl(metrics_jsonl)
    unit = "step" if any("step" in row for row in rows) else "epoch"
    series = read_series(rows, unit)
    losses = [name for name in series if name.endswith("_loss") and name.removeprefix(VALIDATION) not in LOSS_SUMS]
    losses.sort(key=lambda name: not name.endswith("total_loss"))
    trained = [name for name in losses if not name.startswith(VALIDATION)]
    figures = [name for name in series if name.split(" ")[-1] in ("AP", "AP50", "AP75")]
    panels = [names for names in (losses, figures, [name for name in series if name == "lr"]) if names]
    if not panels:
        raise InputError(f"{metrics_jsonl}: nothing to plot: found no losses, learning rate or AP in {len(rows)} lines")
    figure, panes = _figure(1, len(panels), (4.6 * len(panels), 3.9))
    for axes, names in zip(panes, panels):
        title = {"lr": "Learning rate"}.get(names[0], "Losses" if names is losses else "Average precision")
        _style(axes, title, unit, "")
        for i, name in enumerate(names):
            points, plain = series[name], name.removeprefix(VALIDATION)
            main = plain in ("total_loss", "lr", "AP")
            place = trained.index(plain) if plain in trained else i     # validation and training share a colour
            label = f"{name.replace('_', ' ')}   {points.y[-1]:.3g}"
            x, y = thin(*points)
            axes.plot(x, y, color=INK if main else LINES[place % len(LINES)], lw=2 if main else 1.4, label=label,
                      ls="-" if plain == name else "--", marker="o" if len(x) <= 30 else None, ms=3.5)
        axes.set_ylim(bottom=0)
        if names is figures:
            axes.set_ylim(0, 1)
        axes.ticklabel_format(style="sci", scilimits=(-3, 5), axis="both")
        if names != ["lr"]:
            axes.legend(loc="best", **_LEGEND)
    return _save(figure, png)


def read_jsonl(path: Path | str) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file. An incomplete last line, which a killed run may leave, is ignored.

    Raises:
        InputError: the file is missing, or another line is not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    lines = [(i, line) for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if line.strip()]
    rows = []
    for i, line in lines:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if i == lines[-1][0]:
                break
            raise InputError(f"{path}: line {i}: not JSON: {error.msg}") from error
        if not isinstance(rows[-1], dict):
            raise InputError(f"{path}: line {i}: expected a JSON object, got {type(rows[-1]).__name__}")
    return rows


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without nesting: {"bbox": {"AP": 0.3}} becomes {"AP": 0.3}; keys under `segm` get the prefix "segm "."""
    result = dict(row)
    for key in ("losses", "bbox", "segm"):
        inner = result.pop(key, None)
        if isinstance(inner, dict):
            result.update({f"segm {name}" if key == "segm" else name: value for name, value in inner.items()})
    return result


def read_series(rows: Iterable[Mapping[str, Any]], unit: str) -> dict[str, Series]:
    """Return the points of every finite number in the rows, by name. unit: key of the x value, by default the row number."""
    series: dict[str, Series] = {}
    for i, row in enumerate(map(flat, rows), 1):
        x = row.pop(unit, i)
        for name, value in row.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value):
                points = series.setdefault(name, Series([], []))
                points.x.append(x)
                points.y.append(value)
    return series


def thin(x: Sequence[float], y: Sequence[float], most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a curve to at most `most` points by averaging groups of consecutive points."""
    size = -(-len(x) // most)
    groups = np.arange(len(x)) // size
    counts = np.bincount(groups)
    return np.bincount(groups, x) / counts, np.bincount(groups, y) / counts


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[:most - 1]}…"


def _label(name: str) -> str:
    """Return a class name for a legend, where matplotlib parses $...$ as a formula and hides names that start with _."""
    text = printable(_short(name)).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)     # unlike pyplot, needs no display and no closing
    return figure, figure.subplots(rows, columns, squeeze=False)[0]


def _style(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=11, color=INK, loc="left", pad=10)
    axes.set_xlabel(x, fontsize=9, color=PALE)
    axes.set_ylabel(y, fontsize=9, color=PALE)
    axes.grid(color="#e6e8eb", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=PALE, length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c9ccd1")


def _save(figure: Any, png: Path | str) -> Path:
    png = Path(png)
    with replacing(png) as partial:
        figure.savefig(partial)
    return png
