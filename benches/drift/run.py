#!/usr/bin/env python3
"""Measures drift detection: Sextant beside alibi-detect and Evidently, on the same streams of CLINC150.

    python3 benches/drift/run.py

Needs a release build, the model `minilm` (`make setup`) and, for the first run, an index of Python packages. Everything that is made
lies in `.sextant/drift-bench`; the tables and the plot in its folder `out`. Takes an hour and a half on two cores,
most of it alibi-detect's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / ".sextant" / "drift-bench"
STEPS = ("embed", "fit", "replay", "scores", "curve", "evidently", "alibi", "alibi_short", "tables")
# Read before Python starts. Without the first one the heap of alibi-detect's bootstrap breaks into pieces and takes all memory.
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=131072",
    "OMP_NUM_THREADS": "1",
    "DO_NOT_TRACK": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sextant", type=Path, default=ROOT / "target" / "release" / "sextant", help="the binary")
    parser.add_argument("--models", type=Path, default=ROOT / ".sextant" / "models", help="repository with minilm@1")
    parser.add_argument("--data", type=Path, help="folder with clinc150.json [default: looked for]")
    parser.add_argument("--venv", type=Path, default=WORK / "venv", help="made of requirements.txt if it is not there")
    parser.add_argument("--steps", default=",".join(STEPS), help="only these; the others' results are kept: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a few runs of everything, to see that it works")
    return parser.parse_args()


def into_venv(venv: Path) -> None:
    """Goes on under the environment's Python, which is made first if it is not there."""
    python = venv / "bin" / "python"
    if Path(sys.prefix).resolve() == venv.resolve() and all(os.environ.get(k) == v for k, v in ENVIRONMENT.items()):
        return
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        # The pins are the whole set: alibi-detect's own bounds refuse versions that work.
        install = [python, "-m", "pip", "install", "--no-compile", "--no-deps", "-r", HERE / "requirements.txt"]
        subprocess.run(install, check=True)
    os.environ.update(ENVIRONMENT)
    os.execv(python, [str(python), "-W", "ignore", *sys.argv])


def clinc(named: Path | None) -> Path:
    """The folder of the data, in the project or beside it."""
    places = [named] if named else [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    for place in places:
        if (place / "clinc150.json").exists():
            return place
    raise SystemExit("clinc150.json is not there: name its folder with --data")


def main() -> None:
    options = arguments()
    steps = options.steps.split(",")
    if unknown := set(steps) - set(STEPS):
        raise SystemExit(f"unknown steps: {', '.join(sorted(unknown))}")
    into_venv(options.venv)

    import numpy as np

    import ours
    import peers
    import server
    import settings
    import streams
    import tables

    amounts = settings.QUICK if options.quick else settings.Settings()
    # Apart, so that trying it does not replace what was measured.
    work = WORK / "quick" if options.quick else WORK
    results = work / "results"
    results.mkdir(parents=True, exist_ok=True)
    texts = streams.Texts(clinc(options.data), HERE / "german.txt")
    sextant = server.Sextant(options.sextant.resolve(), options.models.resolve())
    bench = ours.Bench(sextant, texts, amounts, work)
    # Named by what it was made of.
    digest = hashlib.sha256("\n".join(texts.texts).encode()).hexdigest()[:8]
    embedded = WORK / f"embeddings-{server.MODEL}-{digest}.npy"

    def keep(step: str):
        return lambda found: (results / f"{step}.json").write_text(json.dumps(found, indent=1))

    if "embed" in steps and not embedded.exists():
        settings.progress(f"embed: {len(texts.texts)} texts")
        with sextant.serving(work / "serve.log") as address:
            np.save(embedded, server.embed(address, texts.texts))
    if "fit" in steps:
        bench.fit(keep("fit"))
    if "replay" in steps:
        bench.replay(keep("replay"))
    vectors = np.load(embedded)
    for step, measure in (("scores", bench.scores), ("curve", bench.curve)):
        if step in steps:
            measure(vectors, keep(step))
    for step in ("evidently", "alibi", "alibi_short"):
        if step in steps:
            getattr(peers, step)(texts, vectors, amounts, keep(step))
    if "tables" in steps:
        tables.write(results, work / "out", amounts, sextant.version())
        settings.progress(f"wrote {work / 'out'}")


if __name__ == "__main__":
    main()
