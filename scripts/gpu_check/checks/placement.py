"""The model runs where it was asked to: by what the server says, in all three places where it says it."""

from __future__ import annotations

import json

from ..context import FP16, Context
from ..options import Options
from ..report import Bound, measured, stated
from ..server import MODEL

# Matrix products of a layer at least: attention (with its projections, where they are fused), its output, up and down.
PRODUCTS = 4


def check(context: Context) -> None:
    options, report, server = context.options, context.report, context.server(FP16)
    placed = server.ready()["placement"][f"{MODEL}@{FP16}"]
    devices, nodes = placed["devices"], placed["nodes"]
    report.add(
        stated("placement: device by /readyz", is_asked(options, devices), json.dumps(devices), f"{options.device}", devices=devices)
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


def is_asked(options: Options, devices: object) -> bool:
    """`cuda` may be any one of that kind, `cuda:1` is that one."""
    if not isinstance(devices, list) or not devices or not all(isinstance(device, str) for device in devices):
        return False
    if options.device == options.kind:
        return len(devices) == 1 and devices[0].split(":")[0] == options.kind
    return sorted(devices) == sorted(options.device.split(","))


def fewest_nodes(context: Context) -> int:
    """Of the asked provider: TensorRT makes one node of many, the others have one for each matrix product at least."""
    config = json.loads((context.options.checkpoint / "config.json").read_text(encoding="utf-8"))
    layers = config.get("num_hidden_layers") or 0
    return 1 if context.options.kind == "tensorrt" else max(1, PRODUCTS * layers)
