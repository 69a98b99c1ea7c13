"""A browser without a screen, driven over two pipes by Chromium's DevTools protocol. It reaches 127.0.0.1 and no other host."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

PROGRAM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
PATIENCE = 60


class Chromium:
    """One page. Notes every address that it asks for, and everything that a person would find in its console."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        arguments = [
            PROGRAM, "--headless", "--remote-debugging-pipe", f"--user-data-dir={self.profile.name}", "--window-size=1280,1600",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--no-first-run", "--disable-background-networking",
            # In a container there is neither a user to change to nor room in /dev/shm. The pages are our own.
            "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
        ]
        to_browser, self.commands = os.pipe()
        self.answers, from_browser = os.pipe()
        # The protocol is spoken on 3 and 4, which one of the pipes may have already: a shell puts them aside, and then there.
        script = f'exec {{to}}<&{to_browser} {{from}}>&{from_browser}; exec 3<&"$to" 4>&"$from"; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *arguments], pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.unread, self.number = b"", 0
        self.requests, self.console = [], []
        target = self.send("Target.createTarget", url="about:blank", session=None)["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True, session=None)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.commands)
        os.close(self.answers)
        self.profile.cleanup()

    def send(self, method, session="this", **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.note(answer)

    def read(self):
        while b"\0" not in self.unread:
            if not select.select([self.answers], [], [], PATIENCE)[0]:
                raise TimeoutError(f"Chromium says nothing for {PATIENCE} s")
            part = os.read(self.answers, 1 << 20)
            if not part:
                raise EOFError("Chromium has ended")
            self.unread += part
        message, self.unread = self.unread.split(b"\0", 1)
        return json.loads(message)

    def note(self, event):
        method, of = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(of["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.console.append(of["exceptionDetails"].get("exception", of["exceptionDetails"]).get("description", str(of)))
        elif method == "Runtime.consoleAPICalled" and of["type"] in ("error", "warning", "assert"):
            self.console.append(" ".join(str(part.get("value", part.get("description"))) for part in of["args"]))
        elif method == "Log.entryAdded" and of["entry"]["level"] in ("error", "warning"):
            self.console.append(f"{of['entry']['text']} {of['entry'].get('url', '')}")

    def open(self, address):
        self.send("Page.navigate", url=address)

    def run(self, script):
        """The value of an expression on the page."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, script):
        """Waits until the expression holds."""
        end = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({script})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{PATIENCE} s, and not yet: {script}\n" + "\n".join(self.console))
            time.sleep(0.05)

    def screenshot(self, file):
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))
