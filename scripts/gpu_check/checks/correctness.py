"""The vectors of the device are those of fp32 on the CPU, by the gate's probes and as they are served."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .. import texts as text_sets
from ..binary import NOT_PASSED
from ..context import FP16, FP32, Context
from ..report import Bound, information, measured, stated
from ..server import MODEL, Server

# Least cosines.
LEAST = {FP32: 0.99999, FP16: 0.999}
PRECISION = {FP32: "fp32", FP16: "fp16"}
# Texts to compare, beside the odd ones; and those that are asked for alone as well.
COMPARED, ALONE = 200, 32


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Not a number where a vector is zero or has none."""
    lengths = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in other))
    return sum(x * y for x, y in zip(one, other, strict=True)) / lengths if lengths > 0 else math.nan


def least(ones: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The least cosine of two lists of vectors, and where; what is no number is the least of all."""
    cosines = [cosine(one, other) for one, other in zip(ones, others, strict=True)]
    at = min(range(len(cosines)), key=lambda at: cosines[at] if math.isfinite(cosines[at]) else -math.inf)
    return cosines[at], at


def check(context: Context) -> None:
    for version in (FP32, FP16):
        gate(context, version)
    texts = [*text_sets.ODD, *context.texts[: COMPARED // 4 if context.options.quick else COMPARED]]
    reference = context.reference(texts)
    for version in (FP32, FP16):
        served(context, version, texts, reference)


def gate(context: Context, version: int) -> None:
    """The version's own probes, run on the device, against the vectors that its import made on the CPU; of fp16 also against those of
    fp32."""
    repository = context.repositories[version]
    arguments = ("verify", f"{MODEL}@{version}", "--models", repository, "--device", context.options.device, "--json")
    found = context.binary.json(*arguments, codes=(0, NOT_PASSED))
    name = f"correctness: {PRECISION[version]}"
    failed = "; ".join(check["sentence"] for check in found["checks"] if check["verdict"] == "failed")
    context.report.add(stated(f"{name} passes the gate", found["passed"] is True, failed or "passed", "passed", checks=found["checks"]))
    figures = {check["name"]: check["figure"] for check in found["checks"]}
    bound = Bound(least=LEAST[version])
    context.report.add(measured(f"{name} probes", figures.get("probe_cosine"), bound, shown(figures.get("probe_cosine"))))
    if version == FP16:
        context.report.add(
            measured(f"{name} probes against fp32 on the CPU", figures.get("claim_cosine"), bound, shown(figures.get("claim_cosine")))
        )


def served(context: Context, version: int, texts: list[str], reference: list[tuple[float, ...]]) -> None:
    server, bound, name = context.server(version), Bound(least=LEAST[version]), f"correctness: {PRECISION[version]} served"
    vectors = server.vectors(texts)
    figure, at = least(vectors, reference)
    context.report.add(measured(f"{name} against fp32 on the CPU", figure, bound, shown(figure), texts=len(texts), text=texts[at][:60]))
    compare_alone(context, server, name, bound, texts, vectors)


def compare_alone(context: Context, server: Server, name: str, bound: Bound, texts: list[str], vectors: list[tuple[float, ...]]) -> None:
    alone = [server.vectors([text])[0] for text in texts[:ALONE]]
    figure, at = least(alone, vectors[:ALONE])
    difference = max(abs(x - y) for one, other in zip(alone, vectors) for x, y in zip(one, other))
    context.report.add(measured(f"{name} alone against in a batch", figure, bound, shown(figure), text=texts[at][:60]))
    context.report.add(information(f"{name} alone against in a batch, largest difference", f"{difference:.1e}", value=difference))


def shown(figure: float | None) -> str:
    return "no number" if figure is None else f"{figure:.7f}"
