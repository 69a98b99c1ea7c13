"""What the command line asks for, and how long each phase may take."""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

# In the order in which they run.
PHASES = ("devices", "correctness", "placement", "throughput", "latency", "beside", "soak", "faults")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Not `auto`, which may take the CPU: nothing would be proved of a GPU. Not `tensorrt`, which takes no compiled checkpoint.
DEVICE = re.compile(r"cpu|cuda(:\d+)?|cuda:\d+(,cuda:\d+)+")
# A quarter of the soak without a rollout would have less in memory than one with: see `soak`.
FEWEST_ROLLOUTS = 4


@dataclass(frozen=True)
class Options:
    sextant: Path
    onnxruntime: Path
    checkpoint: Path
    device: str
    only: tuple[str, ...]
    texts: Path | None
    json: Path | None
    python: str
    allow_skips: bool
    quick: bool
    # Seconds.
    soak: float
    rollouts: int
    # Seconds of each measurement of a speed.
    measure: float
    # Turns of the bare session and the server.
    rounds: int
    # 0: tried.
    clients: int
    # Processes that make load: one is one thread.
    generators: int

    @property
    def kind(self) -> str:
        return re.split("[:,]", self.device)[0]

    @property
    def provider(self) -> str:
        return PROVIDERS[self.kind]

    @property
    def has_gpu(self) -> bool:
        return self.kind != "cpu"

    @property
    def devices(self) -> list[str]:
        """As the server names them: `cuda` is the first."""
        return [f"cuda:{gpu}" for gpu in self.gpus] or ["cpu"]

    @property
    def gpus(self) -> list[int]:
        """Numbers of the GPUs that are asked for."""
        if not self.has_gpu:
            return []
        return [int(number or 0) for number in re.findall(r"cuda:?(\d*)", self.device)]


def parse(description: str, arguments: list[str] | None = None) -> Options:
    """Exits with code 2 where something is wrong."""
    parser = argparse.ArgumentParser("gpu-check", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--sextant", type=Path, required=True, metavar="FILE", help="the release binary")
    add("--onnxruntime", type=Path, required=True, metavar="FILE", help="libonnxruntime.so, its providers and CUDA libraries beside it")
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="config.json, tokenizer.json, model.safetensors, ...")
    add("--device", default="cuda", help="cpu, cuda, cuda:1, or several by comma [default: cuda]")
    add("--only", type=phases, default=PHASES, metavar="PHASES", help=f"some of {','.join(PHASES)} [default: all]")
    add("--texts", type=Path, metavar="FILE", help="texts to measure with, one a line [default: made, median 27 tokens, p95 145]")
    add("--json", type=Path, metavar="FILE", help="keep every figure there")
    add("--python", default=sys.executable, metavar="EXE", help="the one that has PyTorch [default: the running one]")
    add("--allow-skips", action="store_true", help="what is skipped or not judged does not change the exit code")
    add("--quick", action="store_true", help="a smoke run: speeds and memory are measured, and not judged")
    add("--soak", type=seconds, metavar="TIME", help="as 10m [default: 1m; 30s if quick]")
    add("--rollouts", type=int, metavar="N", help="during the soak [default: 6; 4 if quick]")
    add("--measure", type=seconds, metavar="TIME", help="each measurement of a speed [default: 5s; 2s if quick]")
    add("--rounds", type=int, metavar="N", help="turns of the bare session and the server [default: 3; 1 if quick]")
    add("--clients", type=int, default=0, metavar="N", help="at saturation [default: tried on a GPU, 4 on the CPU]")
    add("--generators", type=int, metavar="N", help="processes that make the load [default: one for 4 processors, at most 4]")
    given = parser.parse_args(arguments)
    soak, rollouts, measure, rounds = (30.0, 4, 2.0, 1) if given.quick else (60.0, 6, 5.0, 3)
    generators = max(1, min(4, (os.cpu_count() or 1) // 4))
    options = Options(
        sextant=given.sextant.absolute(),
        onnxruntime=given.onnxruntime.absolute(),
        checkpoint=given.checkpoint.absolute(),
        device=given.device,
        only=tuple(phase for phase in PHASES if phase in given.only),
        texts=given.texts,
        json=given.json,
        python=given.python,
        allow_skips=given.allow_skips,
        quick=given.quick,
        soak=soak if given.soak is None else given.soak,
        rollouts=rollouts if given.rollouts is None else given.rollouts,
        measure=measure if given.measure is None else given.measure,
        rounds=rounds if given.rounds is None else given.rounds,
        clients=given.clients,
        generators=generators if given.generators is None else given.generators,
    )
    if mistakes := "; ".join(wrong(options)):
        parser.error(mistakes)
    return options


def wrong(options: Options) -> list[str]:
    """All that is wrong, in words."""
    mistakes = []
    for name, path, there in (
        ("--sextant", options.sextant, options.sextant.is_file() and os.access(options.sextant, os.X_OK)),
        ("--onnxruntime", options.onnxruntime, options.onnxruntime.is_file()),
        ("--checkpoint", options.checkpoint, (options.checkpoint / "config.json").is_file()),
        ("--texts", options.texts, options.texts is None or options.texts.is_file()),
        ("--json", options.json, options.json is None or options.json.absolute().parent.is_dir()),
    ):
        if not there:
            mistakes.append(f"{name}: `{path}` is not there, or not what is needed")
    if not DEVICE.fullmatch(options.device):
        mistakes.append(f"--device: `{options.device}` is none that can be checked: expected cpu, cuda, cuda:0 or cuda:0,cuda:1")
    if options.rollouts < FEWEST_ROLLOUTS:
        mistakes.append(f"--rollouts: at least {FEWEST_ROLLOUTS}, one in each quarter of the soak")
    for name in ("soak", "measure", "rounds", "generators"):
        if getattr(options, name) <= 0:
            mistakes.append(f"--{name} is more than 0")
    if options.clients < 0:
        mistakes.append("--clients is at least 1")
    return mistakes


def phases(text: str) -> tuple[str, ...]:
    asked = tuple(text.split(","))
    if unknown := [phase for phase in asked if phase not in PHASES]:
        raise argparse.ArgumentTypeError(f"`{unknown[0]}` is no phase: there are {', '.join(PHASES)}")
    return asked


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"`{text}` is no time: expected one as 90s or 10m")
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[match[2]]
