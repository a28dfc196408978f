"""`python -m bench match | python -m bench.picture OUT.svg`: texts a CPU second of each matcher, by size of list."""

from __future__ import annotations

import json
import sys

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

mpl.use("svg")
mpl.rcParams.update({"svg.hashsalt": "worldclip", "svg.fonttype": "none"})  # The same bytes each time, text as text.
PEERS = {"pyahocorasick": "pyahocorasick", "ahocorasick_rs": "ahocorasick_rs", "polars_find_many": "Polars find_many"}


def main() -> None:
    rows = [json.loads(line) for line in sys.stdin]
    rows = [row for row in rows if "texts_per_second" in row]
    languages = list(dict.fromkeys(row["lang"] for row in rows))
    figure, panels = pyplot.subplots(
        1, len(languages), figsize=(2.1 * len(languages), 3), sharey=True, layout="constrained"
    )
    for panel, lang in zip(panels, languages, strict=True):
        own = [row for row in rows if row["lang"] == lang]
        sizes = [row["entries"] for row in own]
        panel.loglog(sizes, [row["texts_per_second"] for row in own], "o-", color="C0", linewidth=2, label="Index")
        for number, (column, name) in enumerate(PEERS.items(), 1):
            told = [(row["entries"], row[column]) for row in own if column in row]
            panel.loglog(*zip(*told, strict=True), "s--", color=f"C{number}", markersize=4, label=name)
        panel.set_title(lang)
        panel.grid(alpha=0.3)
        panel.xaxis.set_major_formatter(
            FuncFormatter(lambda size, _: f"{size / 1e6:g}M" if size >= 1e6 else f"{size / 1e3:g}k")
        )
    panels[0].set_ylabel("texts a CPU second")
    panels[0].yaxis.set_major_formatter(
        FuncFormatter(lambda rate, _: f"{rate / 1e6:g}M" if rate >= 1e6 else f"{rate / 1e3:g}k")
    )
    figure.supxlabel("entries", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(sys.argv[1], metadata={"Date": None})


main()
