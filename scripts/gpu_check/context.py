"""What all phases share: the two versions, servers that run, the texts, and figures that more than one phase needs."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

from . import texts as text_sets
from .binary import Binary, Children
from .load import Load, Outcome
from .options import Options
from .report import Report, say
from .server import MODEL, Server

FP32, FP16 = 1, 2
# Where speed is not the question: finding what suits the machine takes longer than all else on a small one.
SIZED = ("--sessions=1", "--lone-threads=0", "--max-batch-tokens=1024")
# Fewer than elsewhere: what is quick is not judged by its speed.
QUICK_TEXTS = 2_000


class Context:
    def __init__(self, options: Options, report: Report, folder: Path, children: Children) -> None:
        self.options, self.report, self.folder = options, report, folder
        self.binary = Binary(options.sextant, options.onnxruntime, children)
        self.servers: dict[int, Server] = {}
        self.started = 0

    @functools.cached_property
    def repositories(self) -> dict[int, Path]:
        """A repository for each version that serves: of fp32 alone, and of fp32 and fp16, which claims its space."""
        checkpoint, alone, both = self.options.checkpoint, self.folder / "fp32", self.folder / "fp16"
        say("importing fp32 and fp16")
        said = [self.binary.run("import", checkpoint, "--models", alone, "--name", MODEL, "--precision", "fp32")]
        shutil.copytree(alone, both)
        claim = ("--precision", "fp16", "--claim-space-of", FP32, "--activate")
        said.append(self.binary.run("import", checkpoint, "--models", both, "--name", MODEL, *claim))
        self.report.facts["versions"] |= {"imported": [lines.splitlines()[0] for lines in said]}
        return {FP32: alone, FP16: both}

    def start(
        self, repository: Path, device: str, *flags: object, sizes: tuple[str, ...] | None = None, drain_delay: float = 0.0
    ) -> Server:
        """A server of a phase's own; it finds its sizes itself where none are given, unless all is quick."""
        self.started += 1
        if sizes is None:
            sizes = SIZED if self.options.quick else ()
        folder, delay = self.folder / f"server-{self.started}", f"--drain-delay={drain_delay:g}s"
        return Server(self.binary, folder, "--models", repository, "--device", device, delay, *sizes, *flags)

    def server(self, version: int) -> Server:
        """The server of a version on the device; the same one for all phases that ask for it."""
        if version in self.servers and not self.servers[version].lives():
            self.servers.pop(version).end()
        if version not in self.servers:
            say(f"starting a server of {MODEL}@{version} on {self.options.device}")
            self.servers[version] = self.start(self.repositories[version], self.options.device)
        return self.servers[version]

    def reference(self, texts: list[str]) -> list[tuple[float, ...]]:
        """Vectors of fp32 on the CPU, which all others are held against."""
        say(f"starting a server of {MODEL}@{FP32} on cpu")
        server = self.start(self.repositories[FP32], "cpu", sizes=SIZED)
        vectors = server.vectors(texts)
        server.stop()
        return vectors

    def alone(self, version: int) -> Server:
        """The same, and no other server runs beside it: for speeds."""
        self.stop_servers(but=version)
        return self.server(version)

    def stop_servers(self, but: int | None = None) -> None:
        for version in [version for version in self.servers if version != but]:
            self.servers.pop(version).stop()

    @functools.cached_property
    def words(self) -> list[str]:
        return text_sets.words(self.options.checkpoint)

    @functools.cached_property
    def texts(self) -> list[str]:
        if self.options.texts:
            return text_sets.read(self.options.texts)
        return text_sets.mixed(self.words, QUICK_TEXTS if self.options.quick else text_sets.COUNT)

    @functools.cached_property
    def texts_file(self) -> Path:
        return text_sets.write(self.folder / "texts.jsonl", self.texts)

    @functools.cached_property
    def ids(self) -> list[list[int]]:
        """Of each text, by the server."""
        ids = self.server(FP16).tokens(self.texts)
        self.report.facts["texts"] = text_sets.lengths(ids) | {"from": str(self.options.texts or "made")}
        return ids

    def load(self, server: Server) -> Load:
        return Load(self.binary, server, self.folder / "load")

    @functools.cached_property
    def clients(self) -> int:
        """So many, with 32 texts a request, saturate the server."""
        options = self.options
        if options.clients or not options.has_gpu:
            return options.clients or 4
        load, tried = self.load(self.alone(FP16)), {}
        files = load.split(self.texts, options.generators)
        for clients in (32, 64, 128):
            outcome = load.run(files, clients, 32, options.measure / 2, warmup=1.0)
            tried[clients] = outcome.tokens_per_second
            say(f"{clients} clients: {outcome.tokens_per_second:,.0f} tokens/s")
        self.report.facts["clients_tried"] = tried
        return max(tried, key=tried.__getitem__)

    def saturate(self) -> Outcome:
        """One measurement of the fp16 server with requests of 32."""
        load = self.load(self.alone(FP16))
        return load.run(load.split(self.texts, self.options.generators), self.clients, 32, self.options.measure)

    @functools.cached_property
    def served(self) -> Outcome:
        """The same for phases that hold something else against it; the phase `throughput` leaves its median here."""
        return self.saturate()

    def bare(self, *flags: str) -> dict:
        """A loop of the bare sessions of fp16 on the same texts and device."""
        command = ("bench", "session", f"{MODEL}@{FP16}", "--models", self.repositories[FP16], "--input", self.texts_file)
        duration = f"{round(self.options.measure * 1000)}ms"
        return self.binary.json(*command, "--device", self.options.device, "--duration", duration, *flags, "--json")
