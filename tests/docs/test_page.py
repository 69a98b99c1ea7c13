"""The page at /docs in a real browser, before a real server, with no other host to be reached."""

import http.server
import os
import pathlib
import re
import subprocess
import sys
import threading
import unittest
import urllib.error
import urllib.request

import chromium

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "deploy"))
from machine import BINARY, MODELS, ROOT, RUNTIME, environment, needs, skip  # noqa: E402

OPERATIONS = re.findall(r"^      operationId: (\w+)$", (ROOT / "openapi.yaml").read_text(), re.MULTILINE)


class Prefix(http.server.BaseHTTPRequestHandler):
    """An ingress that serves the server below /some/prefix."""

    PATH = "/some/prefix"
    backend = None

    def answer(self):
        if not self.path.startswith(self.PATH + "/"):
            return self.send_error(404)
        body = self.rfile.read(int(self.headers.get("content-length", 0))) or None
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        request = urllib.request.Request(self.backend + self.path[len(self.PATH):], body, headers, method=self.command)
        try:
            answer = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            answer = error
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "connection", "date", "server", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


@needs(BINARY, MODELS, RUNTIME)
class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not chromium.PROGRAM:
            skip("there is no Chromium (Debian: apt-get install chromium-headless-shell)")
        # Nothing is measured here: two settings that are given need no measuring at the start.
        command = [BINARY, "serve", "--models", MODELS, "--listen", "127.0.0.1:0", "--sessions", "1", "--lone-threads", "1",
                   "--max-batch-tokens", "256"]
        cls.server = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, text=True)
        cls.addClassCleanup(cls.stop)
        cls.address = re.search(r"http://127\.0\.0\.1:\d+", cls.server.stdout.readline())[0]

    @classmethod
    def stop(cls):
        cls.server.terminate()
        cls.server.wait()
        cls.server.stdout.close()

    def setUp(self):
        self.browser = chromium.Chromium()
        self.addCleanup(self.browser.close)

    def check(self, address):
        """Opens the page at `address`, sees every operation, tries one, and gives what it asked for."""
        browser = self.browser
        browser.open(f"{address}/docs")
        browser.until(f"document.querySelectorAll('.opblock').length == {len(OPERATIONS)}")
        shown = browser.run("[...document.querySelectorAll('.opblock')].map(one => one.id.split('-').at(-1))")
        self.assertEqual(sorted(shown), sorted(OPERATIONS))
        if folder := os.environ.get("SCREENSHOTS"):
            browser.screenshot(pathlib.Path(folder) / "docs.png")
        one = "document.querySelector('#operations-OpenAI-createEmbeddings %s')"
        for element in (".opblock-summary-control", ".try-out__btn", ".execute"):
            browser.until(one % element)
            browser.run(f"{one % element}.click()")
        browser.until(one % ".live-responses-table tbody .response-col_status")
        self.assertEqual(browser.run(f"{one % '.live-responses-table tbody .response-col_status'}.innerText.split('\\n')[0]"), "200")
        answer = browser.run(f"{one % '.live-responses-table tbody .response-col_description'}.innerText")
        self.assertIn('"embedding"', answer)
        self.assertIn("x-sextant-version: minilm@", answer)
        if folder:
            browser.run(f"{one % '.execute-wrapper, #operations-OpenAI-createEmbeddings .btn-group'}.scrollIntoView()")
            browser.screenshot(pathlib.Path(folder) / "docs-tried.png")
        self.assertEqual(browser.console, [])
        return [request for request in browser.requests if not request.startswith("data:")]

    def test_it_shows_every_operation_and_tries_one(self):
        paths = ("/docs", "/docs/page.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/openapi.yaml", "/v1/embeddings")
        self.assertEqual(sorted(self.check(self.address)), sorted(self.address + path for path in paths))

    def test_it_works_below_a_prefix(self):
        Prefix.backend = self.address
        ingress = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Prefix)
        thread = threading.Thread(target=ingress.serve_forever)
        thread.start()
        self.addCleanup(ingress.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(ingress.shutdown)
        address = f"http://127.0.0.1:{ingress.server_port}{Prefix.PATH}"
        self.assertEqual([request for request in self.check(address) if not request.startswith(address + "/")], [])

    def test_the_policy_holds_the_page_back(self):
        """Whatever a script on the page wants from another address, the browser does not let it out."""
        self.browser.open(f"{self.address}/docs")
        self.browser.until("document.querySelector('.opblock')")
        # Reachable, and of another origin.
        elsewhere = self.address.replace("127.0.0.1", "127.0.0.2")
        script = f"fetch({elsewhere!r}).then(() => 'sent', error => error.message)"
        self.assertEqual(self.browser.run(script), "Failed to fetch")
        self.assertTrue(any("Content Security Policy" in line for line in self.browser.console), self.browser.console)


if __name__ == "__main__":
    unittest.main()
