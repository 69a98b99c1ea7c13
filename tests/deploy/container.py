"""A command in the root of an image, as an engine runs it: read-only, as any user, with processes and network of its own.

Run as a program it is what comes between the new namespaces and the command.
"""

import ctypes
import fcntl
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys

# Of <sys/prctl.h>, <linux/sockios.h> and <net/if.h>.
PR_SET_NO_NEW_PRIVS = 38
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
POST = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], sys.stdin.buffer.read(), {"content-type": "application/json"})
with urllib.request.urlopen(request, timeout=60) as answer:
    sys.stdout.buffer.write(answer.read())
"""


class Container:
    """Runs from the start until it ends by itself or is killed."""

    def __init__(self, root, user, command, environment, writable=(), files=None):
        """`writable` are paths of empty volumes, `files` the texts of files that are mounted."""
        self.root, self.environment = pathlib.Path(root), environment
        self.user, self.group = map(int, user.split(":"))
        plan = {
            "root": str(root), "user": self.user, "group": self.group, "command": command, "environment": environment,
            "writable": list(writable), "files": files or {},
        }
        # The kernel kills what is left of it when unshare goes.
        line = ["unshare", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "--kill-child"]
        line += [sys.executable, __file__, json.dumps(plan)]
        self.process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def first(self):
        """The process id, out here, of its first process, if there is one yet."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def execute(self, command):
        """Another command inside, as the same user, as a health check is run; returns the finished process."""
        first = self.first()
        line = ["nsenter", f"--target={first}", "--mount", "--pid", "--net"]
        line += [f"--root=/proc/{first}/root", f"--wd=/proc/{first}/root"]
        line += [f"--setuid={self.user}", f"--setgid={self.group}", "--", *command]
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, timeout=60)

    def post(self, url, body):
        """What a client on its network is answered."""
        line = ["nsenter", f"--target={self.first()}", "--net", "--", sys.executable, "-c", POST, url]
        data = json.dumps(body).encode()
        return json.loads(subprocess.run(line, input=data, capture_output=True, check=True, timeout=90).stdout)

    def end(self):
        """Waits; the exit code and everything that was printed."""
        printed, _ = self.process.communicate(timeout=60)
        return self.process.returncode, printed


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def loopback_up():
    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def enter(plan):
    root = pathlib.Path(plan["root"])
    loopback_up()
    mount("--make-rprivate", "/")
    mount("--bind", root, root)
    # As an engine does, the places of volumes come before the root becomes read-only.
    for path in plan["writable"]:
        (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for path, text in plan["files"].items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    mount("--options", "remount,bind,ro", root)
    mount("--types", "proc", "proc", root / "proc")
    mount("--rbind", "/sys", root / "sys")
    mount("--rbind", "/dev", root / "dev")
    for path in plan["writable"]:
        mount("--types", "tmpfs", "--options", "mode=1777", "tmpfs", root / path.lstrip("/"))
    os.chroot(root)
    os.chdir("/")
    os.setgroups([])
    os.setresgid(*[plan["group"]] * 3)
    os.setresuid(*[plan["user"]] * 3)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no new privileges")
    os.execvpe(plan["command"][0], plan["command"], plan["environment"])


if __name__ == "__main__":
    enter(json.loads(sys.argv[1]))
