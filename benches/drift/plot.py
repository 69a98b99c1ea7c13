"""Delay by expected run time, as SVG."""

from __future__ import annotations

from pathlib import Path

COLOURS = {"Sextant": "#0b537a", "MMDDriftOnline": "#b5482a"}
NAMES = {"Sextant": "Sextant", "MMDDriftOnline": "alibi-detect MMDDriftOnline"}
STYLES = ("-", "--")
SHARES = ("10 %", "20 %")


def write(curve: list[dict], path: Path) -> None:
    """Draws the means with their intervals; nothing where none were measured."""
    import matplotlib

    matplotlib.use("svg")
    # Text as text, and the same bytes from the same figures.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "drift", "font.size": 11})
    from matplotlib import pyplot

    known = [entry for entry in curve if entry["delay"]]
    if not known:
        return
    figure, axes = pyplot.subplots(figsize=(7.2, 4.4))
    for detector, row in dict.fromkeys((entry["detector"], entry["row"]) for entry in known):
        line = [entry for entry in known if (entry["detector"], entry["row"]) == (detector, row)]
        middle = [entry["delay"][0] for entry in line]
        axes.errorbar(
            [entry["expected"] for entry in line],
            middle,
            yerr=[middle[index] - entry["delay"][1] for index, entry in enumerate(line)],
            color=COLOURS[detector],
            linestyle=STYLES[row],
            marker="o",
            markersize=4,
            capsize=3,
            label=f"{NAMES[detector]}, {SHARES[row]} out-of-scope",
        )
    axes.set_xscale("log")
    # A peer is slower by an order of magnitude.
    axes.set_yscale("log")
    axes.set_yticks([10, 30, 100, 300, 1_000, 3_000], labels=["10", "30", "100", "300", "1,000", "3,000"])
    axes.minorticks_off()
    axes.set_xlabel("expected vectors between false alarms")
    axes.set_ylabel("vectors from the change to the alarm")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
