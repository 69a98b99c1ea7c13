"""Mixed load for minutes, and rollouts between the two versions in it: no request fails, and memory stays flat."""

from __future__ import annotations

import shutil
import time

from ..binary import CommandFailed
from ..context import FP16, FP32, Context
from ..load import WARMUP, Outcome
from ..report import Bound, information, measured, skipped, stated
from ..server import MODEL, Server
from ..watch import Watch, quarters

# The peak of the last quarter, of the second's: in the first, memory still grows to what the load needs.
MOST = 1.10
# Texts of a request, and how many of the clients that saturate send such.
MIX = ((1, 0.5), (32, 0.25), (128, 0.1))
# Of the time between two rollouts; then comes the rollback.
STAYS = 0.5


def check(context: Context) -> None:
    options, report = context.options, context.report
    clients = context.clients
    context.stop_servers()
    # Its log grows by every rollout.
    repository = context.folder / "soak"
    shutil.copytree(context.repositories[FP16], repository)
    server = context.start(repository, options.device)
    # Once before anything is counted, so that what is loaded first is no growth.
    swap(context, server, lambda: None)

    load, runs, seconds, failure = context.load(server), [], [], ""
    files = load.split(context.texts, len(MIX))
    with Watch(server, options.gpus, min(1.0, options.soak / 40)) as watch:
        began = ended = time.monotonic() + WARMUP
        # On a slow machine not every rollout is made in the first run of the load: then it runs again, for those that are missing.
        while len(seconds) < options.rollouts and not failure:
            processes = [
                load.start(file, max(1, round(clients * share)), inputs, options.soak) for (inputs, share), file in zip(MIX, files)
            ]
            run_began = time.monotonic() + WARMUP
            ended = run_began + options.soak
            made, failure = rollouts(context, server, options.rollouts - len(seconds), run_began, ended)
            seconds += made
            time.sleep(max(ended - time.monotonic(), 0))
            runs += load.collect(processes, options.soak + WARMUP).runs
    outcome = Outcome(runs)

    time_told = f"{options.soak / 60:g} minutes" if options.soak >= 60 else f"{options.soak:g} s"
    figure = f"{outcome.not_served} of {outcome.sent} {outcome.causes}".strip()
    report.add(
        stated(f"soak: failed requests in {time_told}", outcome.not_served == 0 and outcome.sent > 0, figure, "0", runs=outcome.runs)
    )
    figure = f"{len(seconds)}, each followed by a rollback" + (f"; {failure}" if failure else "")
    report.add(measured("soak: rollouts", len(seconds), Bound(least=options.rollouts), figure, seconds=seconds))
    if seconds:
        report.add(information("soak: a rollout, to the answer that it serves", f"{max(seconds):.1f} s at most", seconds=seconds))
    report.add(stated("soak: the server lives on", server.lives() and server.ask("GET", "/livez")[0] == 200, "/livez", "200"))
    flat(context, "resident memory", quarters(watch.samples, began, ended, "resident"))
    peaks = quarters(watch.samples, began, ended, "device")
    if not options.has_gpu:
        report.add(skipped("soak: device memory", "no GPU"))
    elif peaks is None:
        report.add(skipped("soak: device memory", "neither the server's metrics nor nvidia-smi say it"))
    else:
        flat(context, "device memory", peaks)
    report.add(stated("soak: the server stops", server.stop() == 0, "SIGTERM", "exit code 0"))


def flat(context: Context, what: str, peaks: list[float] | None) -> None:
    """The last quarter against the second."""
    name = f"soak: {what}, last quarter / second"
    if peaks is None:
        context.report.add(stated(name, False, "a quarter of the time has no figure", f"<= {MOST:g}"))
        return
    ratio, shown = peaks[3] / peaks[1], " ".join(f"{peak / 2**20:.0f}" for peak in peaks)
    judged = not context.options.quick
    context.report.add(measured(name, ratio, Bound(most=MOST), f"{ratio:.3f} (MiB: {shown})", judged, peaks=peaks))


def rollouts(context: Context, server: Server, count: int, began: float, ended: float) -> tuple[list[float], str]:
    """So many rollouts evenly over the time, each followed by a rollback; fewer where they take longer than there is time for them, but
    at least one. How long each took, and why one failed, if one did."""
    slot = (ended - began) / count
    seconds: list[float] = []
    for number in range(count):
        begin = began + number * slot
        time.sleep(max(begin - time.monotonic(), 0))
        if seconds and time.monotonic() >= ended:
            break
        rest = begin + STAYS * slot
        try:
            seconds.append(swap(context, server, lambda rest=rest: time.sleep(max(rest - time.monotonic(), 0))))
        except CommandFailed as error:
            return seconds, str(error)
    return seconds, ""


def swap(context: Context, server: Server, stay) -> float:
    """The other version for as long as `stay` takes, and back. Seconds until it served."""
    asked = time.monotonic()
    context.binary.run("rollout", f"{MODEL}@{FP32}", "--server", server.url, "--reason", "gpu-check")
    took = time.monotonic() - asked
    stay()
    context.binary.run("rollback", MODEL, "--of", FP32, "--server", server.url, "--reason", "gpu-check")
    return took
