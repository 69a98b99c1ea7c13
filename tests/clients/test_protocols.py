"""The versions of HTTP: 1.0 without a host, 1.1 in chunks, 2 without TLS."""

import asyncio
import http.client
import json
import socket
import unittest

import httpx

from server import TEXTS, VECTORS, ClientTest


def body(text: str) -> bytes:
    return json.dumps({"model": "minilm", "input": text}).encode()


class Protocols(ClientTest):
    def check(self, answer: bytes, expected) -> None:
        self.assert_vectors([json.loads(answer)["data"][0]["embedding"]], [expected])

    def test_http_1_0(self):
        sent = body(TEXTS[0])
        with socket.create_connection(tuple(self.server.address.split(":")), timeout=60) as connection:
            connection.sendall(b"POST /v1/embeddings HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(sent) + sent)
            # To the end: a server that speaks 1.0 closes the connection.
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        head, _, answer = answer.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.0 200"), head)
        self.assertNotIn(b"transfer-encoding", head.lower())
        self.check(answer, VECTORS[0])

    def test_http_1_1_in_chunks_and_again_on_the_same_connection(self):
        connection = http.client.HTTPConnection(self.server.address, timeout=60)
        self.addCleanup(connection.close)
        for text, expected in zip(TEXTS[:3], VECTORS):
            sent = body(text)
            connection.request("POST", "/v1/embeddings", iter((sent[:9], sent[9:])), encode_chunked=True)
            sockets = connection.sock
            self.check(connection.getresponse().read(), expected)
            self.assertIs(connection.sock, sockets)

    def test_http_2_without_tls(self):
        # On one thread: with several, httpx's own numbers of streams come out of order, which HTTP/2 forbids.
        async def ask():
            async with httpx.AsyncClient(base_url=self.server.url, http1=False, http2=True, timeout=60, trust_env=False) as client:
                answers = await asyncio.gather(*(client.post("/v1/embeddings", content=body(text)) for text in TEXTS))
                return answers, await client.get("/v1/nope")

        answers, refused = asyncio.run(ask())
        self.assertEqual({answer.http_version for answer in answers}, {"HTTP/2"})
        for answer, expected in zip(answers, VECTORS):
            self.check(answer.content, expected)
        self.assertEqual(refused.json()["error"]["code"], "unknown_url")


if __name__ == "__main__":
    unittest.main()
