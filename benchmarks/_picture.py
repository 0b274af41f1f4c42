"""The figures as bars: a panel for each workload, a bar for each implementation.

Length is speed as a multiple of hiredis, so a longer bar is better; the line at 1 is hiredis. The
colours are Okabe and Ito's, which the colour-blind can tell apart, and every bar is labelled.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._peers import NAMES
from ._report import HIREDIS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ._measure import Row

COLOURS: dict[str, str] = dict(
    zip(
        NAMES,
        # vermillion and its light shade, blue and its light shade, then the peers
        ("#D55E00", "#EFB08A", "#0072B2", "#8CBFDE", "#444444", "#009E73", "#CC79A7", "#E69F00"),
        strict=True,
    )
)
COLUMNS = 4
SHORT = {name: name.replace("one at a time", "one by one") for name in NAMES}


def draw(path: Path, title: str, caption: str, rows: Sequence[Row]) -> None:
    """Write an SVG with a panel for each row."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("svg")
    plots = import_module("matplotlib.pyplot")
    settings = {
        "svg.fonttype": "none",  # text stays text: small, searchable, in the reader's own font
        "svg.hashsalt": "resp-client",
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
        "font.size": 9,
    }
    with plots.rc_context(settings):
        lines = -(-len(rows) // COLUMNS)
        names = [name for name in NAMES if any(name in row.seconds for row in rows)]
        height = lines * (0.55 + 0.19 * len(names)) + 0.95
        figure, axes = plots.subplots(
            lines, min(COLUMNS, len(rows)), figsize=(13, height), squeeze=False
        )
        panels = list(axes.flat)
        for panel, row in zip(panels, rows, strict=False):
            _panel(panel, row, names)
        for panel in panels[len(rows) :]:
            panel.axis("off")
        figure.suptitle(
            title, fontsize=13, fontweight="bold", x=0.01, ha="left", y=1 - 0.1 / height
        )
        figure.text(0.01, 1 - 0.42 / height, caption, fontsize=8.5, color="#333333", va="top")
        bottom, top = 0.12 / height, 1 - 0.75 / height
        figure.tight_layout(rect=(0, bottom, 1, top), h_pad=1.1, w_pad=1.5)
        figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
        plots.close(figure)


def _panel(panel: Any, row: Row, names: Sequence[str]) -> None:
    ratios = [row.ratio(name, HIREDIS) or 0 for name in names]
    longest = max(*ratios, 1)
    places = range(len(names))
    panel.barh(places, ratios, height=0.78, color=[COLOURS[name] for name in names])
    for place, name, ratio in zip(places, names, ratios, strict=True):
        time = row.nanoseconds(name)
        text = f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"
        label = f"{text}\u00d7  {_time(time)}" if time else "absent"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # the line at 1 stays behind
        panel.text(ratio + longest * 0.02, place, label, va="center", fontsize=7.5, bbox=box)
    panel.axvline(1, color="#444444", linewidth=0.8, linestyle=(0, (3, 2)), zorder=0)
    panel.set_yticks(places, [SHORT[name] for name in names], fontsize=7.5)
    panel.invert_yaxis()
    panel.set_xlim(0, longest * 1.5)
    panel.set_xticks([])
    panel.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        panel.spines[side].set_visible(False)
    panel.set_title(row.workload, fontsize=9, fontweight="bold", loc="left", pad=3)


def _time(nanoseconds: float) -> str:
    for unit, size in (("ns", 1e3), ("\u00b5s", 1e6)):
        if nanoseconds < size:
            shown = nanoseconds * 1e3 / size
            return f"{shown:.0f} {unit}" if shown >= 100 else f"{shown:.3g} {unit}"
    return f"{nanoseconds / 1e6:.3g} ms"
