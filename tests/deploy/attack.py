"""An attacker in a process of its own: it says for each line of its input what it did so far, and ends with its input."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time

# Seconds until every attack has begun, at most: on a busy machine they get little of the processor.
BEGINS = 300
# What hostile.py must have done before anything is measured beside it.
DEEDS = ("slow head", "slow body", "nested", "bomb", "head", "bogus model", "bogus path", "bogus admin", "rapid reset", "many streams",
         "endless head", "control frames", "deaf: moves", "deaf by HTTP/2")  # fmt: skip
WIRE = pathlib.Path(__file__).resolve().with_name("hostile.py")


class Attack:
    """A script of Python, from its start to its account."""

    def __init__(self, script: pathlib.Path, *arguments: str) -> None:
        line = [sys.executable, str(script), *arguments]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def done(self) -> dict[str, int]:
        """How often it did what, so far."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self) -> dict[str, int]:
        done = self.done()
        self.process.communicate(timeout=60)
        return done


class WireAttack(Attack):
    """hostile.py against the server at `address`."""

    def __init__(self, address: str) -> None:
        super().__init__(WIRE, *address.split(":"))

    def missing(self) -> list[str]:
        """What it has not done yet."""
        done = self.done()
        return [what for what in DEEDS if not any(name.startswith(what) for name in done)]

    def begun(self) -> None:
        """Returns once each attack has begun; raises TimeoutError after BEGINS seconds."""
        end = time.monotonic() + BEGINS
        while missing := self.missing():
            if time.monotonic() > end:
                raise TimeoutError(f"not begun: {missing}")
            time.sleep(0.2)
