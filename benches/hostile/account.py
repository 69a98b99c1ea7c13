"""What an attacker in a process of its own has done so far: it says so for each line of its input, and ends with its input."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import Counter

DONE: Counter[str] = Counter()
# Below those who are measured, and not so low that it does not come to its turn.
NICE = 10


def begin() -> None:
    """Steps behind the processes that are measured, and gives accounts from now on, beside what is sent: an account must not wait for that."""
    os.nice(NICE)
    threading.Thread(target=_tell, daemon=True).start()


def _tell() -> None:
    while sys.stdin.readline():
        print(json.dumps(dict(DONE)), flush=True)
    os._exit(0)
