"""The model runs where it was asked to: by what the server says, in all three places where it says it."""

from __future__ import annotations

import json

from ..context import FP16, Context
from ..report import Bound, measured, stated
from ..server import MODEL

# Matrix products of a layer at least: attention (with its projections, where they are fused), its output, up and down.
PRODUCTS = 4


def check(context: Context) -> None:
    options, report, server = context.options, context.report, context.server(FP16)
    placed = server.ready()["placement"][f"{MODEL}@{FP16}"]
    devices, nodes = placed["devices"], placed["nodes"]
    report.add(
        stated(
            "placement: device by /readyz", devices == options.devices, json.dumps(devices), json.dumps(options.devices), devices=devices
        )
    )
    least = fewest_nodes(context)
    there = nodes.get(options.provider, 0)
    elsewhere = {provider: count for provider, count in nodes.items() if provider != options.provider}
    figure = f"{there} of {sum(nodes.values())} nodes on {options.provider}"
    if elsewhere:
        figure += "; " + ", ".join(f"{count} on {provider}" for provider, count in sorted(elsewhere.items()))
    report.add(measured("placement: nodes by /readyz", there, Bound(least=least), figure, nodes=nodes))

    metrics = server.metrics()
    exported = {
        labels["provider"]: int(value)
        for labels, value in metrics.find("sextant_engine_nodes", model=MODEL, version=str(FP16))
        if value > 0
    }
    report.add(
        stated(
            "placement: nodes by the metrics", bool(exported) and exported == nodes, json.dumps(exported), "as by /readyz", nodes=exported
        )
    )
    info = metrics.find("sextant_version_info", model=MODEL, version=str(FP16))
    providers = sorted({labels.get("provider", "") for labels, value in info if value == 1})
    report.add(stated("placement: provider of the version", providers == [options.kind], json.dumps(providers), options.kind))

    said = [line for line in server.log() if options.provider in line]
    report.add(
        stated("placement: log of the start", bool(said), f"{len(said)} lines name {options.provider}", "at least 1", lines=said[:5])
    )


def fewest_nodes(context: Context) -> int:
    """Of the asked provider: one for each matrix product at least."""
    config = json.loads((context.options.checkpoint / "config.json").read_text(encoding="utf-8"))
    layers = config.get("num_hidden_layers") or 0
    return max(1, PRODUCTS * layers)
