"""The page of a training run: losses, learning rate, speed and AP by step, and the results of each evaluation."""
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import printable
from .page import write_page

REFRESH = 30            # seconds between reloads of the page during a run
# Titles of the charts with a single line, and of the numbers at the top.
OTHERS = {"lr": "Learning rate", "images_per_s": "Images per second", "grad_norm": "Norm of the gradient"}
CARDS = {"total_loss": "total loss", "val_total_loss": "validation loss", "AP": "AP", "segm AP": "mask AP",
         "lr": "learning rate", "images_per_s": "images per second"}
COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


def write_curves(path: Path, title: str, series: Mapping[str, tuple[Sequence[float], Sequence[float], float]],
                 evaluations: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], running: bool,
                 sums: Iterable[str] = ()) -> None:
    """Write the page.

    Args:
        series: {name: (steps, values, newest value)} of losses (`*_loss`, for validation `val_*_loss`), AP, AP50, AP75 (for masks
            `segm AP`), lr, ...
        evaluations: epoch, step and figures of each evaluation.
        facts: {name: value}, shown below the title.
        running: whether the run is still going, so that the page reloads itself.
        sums: losses that are sums of others, which are not plotted.
    """
    losses = sorted((name for name in series if name.endswith("_loss") and name.removeprefix("val_") not in sums),
                    key=lambda name: not name.endswith("total_loss"))
    figures = [name for name in series if name.removeprefix("segm ") in COLUMNS[:3]]
    charts: list[dict[str, Any]] = [{"title": "Losses", "lines": losses},
                                    {"title": "Average precision", "most": 1, "lines": figures}]
    charts += [{"title": chart, "lines": [name]} for name, chart in OTHERS.items() if name in series]
    for chart in charts:
        chart["lines"] = [_line(name, *series[name]) for name in chart["lines"]]
    names = dict.fromkeys(name for row in evaluations for name in row if name.removeprefix("segm ") in COLUMNS)
    columns = ["epoch", "step", *names]
    main = "segm AP" if "segm AP" in columns else "AP"          # decides which checkpoint is the best
    best = max((row[main] for row in evaluations if row.get(main) is not None), default=None)
    cards = [[name, series[key][2]] for key, name in CARDS.items() if key in series]
    cards += [] if best is None else [[f"best {CARDS[main]}", best]]
    write_page(path, "curves", {
        "charts": [chart for chart in charts if chart["lines"]], "cards": cards, "columns": columns,
        "table": [[row.get(name) for name in columns] for row in evaluations],
    }, title=printable(title), facts={name: printable(str(value)) for name, value in facts.items()}, notes=[],
        refresh=REFRESH if running else 0, evaluations=len(evaluations))


def _line(name: str, x: Sequence[float], y: Sequence[float], last: float) -> dict[str, Any]:
    return {"name": name.replace("_", " "), "x": [round(value, 1) for value in x], "last": last,
            "y": [float(f"{value:.5g}") if math.isfinite(value) else None for value in y]}
