"""Tokens per second at saturation, beside the bare sessions on the same texts; and what limits them."""

from __future__ import annotations

import os
import statistics
import time

from ..context import FP16, Context
from ..load import WARMUP, Outcome
from ..report import Bound, information, measured, stated
from ..server import MODEL, Metrics
from ..watch import Watch

# Served, of the bare session loop on length-sorted batches.
LEAST = 0.85
STAGES = ("tokenize", "queue", "infer", "finish")
# Clients for requests of one text each, for one that saturates with requests of 32.
SINGLE = 4
# A generator above it, of a core, is what limits.
BUSY = 0.9


def check(context: Context) -> None:
    options, server = context.options, context.alone(FP16)
    _ = context.ids  # Tells how long the texts are.
    clients = context.clients
    bare, turns = [], []
    for _ in range(options.rounds):
        bare.append(context.bare())
        with Watch(server, options.gpus) as watch:
            before, began = server.metrics(), time.monotonic() + WARMUP
            turns.append(context.saturate())
            after = server.metrics()
    context.served = sorted(turns, key=lambda one: one.tokens_per_second)[len(turns) // 2]
    ratio_of_medians(context, bare, turns, clients)
    # Of the last turn.
    limits(context, watch, (began, began + options.measure), turns[-1])
    stages(context, before, after)
    singles(context, clients)


def ratio_of_medians(context: Context, bare: list[dict], turns: list[Outcome], clients: int) -> None:
    options, report = context.options, context.report
    raw = statistics.median(one["tokens_per_second"] for one in bare)
    served = statistics.median(one.tokens_per_second for one in turns)
    ratios = [turn.tokens_per_second / one["tokens_per_second"] for one, turn in zip(bare, turns)]
    failed = sum(turn.not_served for turn in turns)
    causes = "; ".join(filter(None, (turn.causes for turn in turns)))
    report.add(
        stated(
            "throughput: requests without vectors", failed == 0, f"{failed} {causes}".strip(), "0", requests=sum(one.sent for one in turns)
        )
    )
    report.add(
        information(
            "throughput: bare sessions", f"{raw:,.0f} tokens/s ({bare[-1]['sessions']} sessions, {bare[-1]['batches']})", turns=bare
        )
    )
    report.add(
        measured(
            "throughput: served / bare sessions",
            served / raw,
            Bound(least=LEAST),
            f"{served / raw:.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            not options.quick,
            ratios=ratios,
        )
    )
    gpus = max(len(options.gpus), 1)
    what = "GPU" if options.has_gpu else "machine"
    report.add(
        information(
            f"throughput: served per {what}",
            f"{served / gpus:,.0f} tokens/s ({clients} clients of 32 texts, base64)",
            tokens_per_second=served,
            per_device=served / gpus,
            clients=clients,
            turns=[turn.runs for turn in turns],
        )
    )


def singles(context: Context, clients: int) -> None:
    """Requests of one text, where all else than the model weighs most."""
    load = context.load(context.alone(FP16))
    files, options = load.split(context.texts, context.options.generators), context.options
    outcome = load.run(files, clients * SINGLE, 1, options.measure)
    report = context.report
    report.add(
        stated(
            "throughput: requests of one text without a vector",
            outcome.not_served == 0,
            f"{outcome.not_served} {outcome.causes}".strip(),
            "0",
            requests=outcome.sent,
        )
    )
    figure = f"{outcome.tokens_per_second:,.0f} tokens/s, {outcome.requests_per_second:,.0f} requests/s ({clients * SINGLE} clients)"
    report.add(
        information(
            "throughput: served, requests of one text",
            figure,
            tokens_per_second=outcome.tokens_per_second,
            generator_share=outcome.generator_share,
            runs=outcome.runs,
        )
    )


def limits(context: Context, watch: Watch, window: tuple[float, float], outcome: Outcome) -> None:
    """Which of processors, GPU and load generators is busy, and so what limits."""
    processors, cores = len(os.sched_getaffinity(0)), watch.cores(*window)
    report = context.report
    if cores is not None:
        share = cores / processors
        report.add(
            information(
                "throughput: processors busy with the server", f"{cores:.1f} of {processors} ({share:.0%})", cores=cores, share=share
            )
        )
    if (busy := watch.utilization(*window)) is not None:
        report.add(information("throughput: GPU busy", f"{busy:.0%}", value=busy))
    if (load := outcome.generator_share) is not None:
        figure = f"{load:.2f} of a core" + (": the load is what limits, give --generators" if load > BUSY else "")
        report.add(information("throughput: busiest load generator", figure, value=load))


def stages(context: Context, before: Metrics, after: Metrics) -> None:
    """The mean time of a request in each stage."""
    means = {}
    for stage in STAGES:
        labels = {"model": MODEL, "version": str(FP16), "stage": stage}
        total, count = (
            (after.sum(f"sextant_stage_duration_seconds_{of}", **labels) or 0)
            - (before.sum(f"sextant_stage_duration_seconds_{of}", **labels) or 0)
            for of in ("sum", "count")
        )
        if count:
            means[stage] = total / count * 1e3
    if means:
        figure = ", ".join(f"{stage} {mean:.2f}" for stage, mean in means.items())
        context.report.add(information("throughput: stages of a request of 32", f"{figure} ms in the mean", **means))
