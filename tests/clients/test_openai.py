"""OpenAI's own client, and LangChain's on top of it."""

import asyncio
import base64
import contextlib
import json
import math
import os
import pathlib
import socket
import struct
import time
import unittest
import urllib.request

import llama_index.core
import openai
from langchain_openai import OpenAIEmbeddings

from server import PROMPT, TEXTS, VECTORS, ClientTest


def unit(vector):
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


class OpenAI(ClientTest):
    # One place, so that one request that is long keeps all others out.
    FLAGS = ("--max-requests=1",)

    def setUp(self):
        # Not closed at the end of a test, its connections would be told of as leaks.
        self.client = self.enterContext(openai.OpenAI(base_url=f"{self.server.url}/v1", api_key="unused", max_retries=0))

    def vectors(self, given, **fields):
        answer = self.client.embeddings.create(model="minilm", input=given, **fields)
        self.assertEqual([one.index for one in answer.data], list(range(len(answer.data))))
        return [one.embedding for one in answer.data]

    def test_floats_and_the_clients_own_choice_of_base64(self):
        self.assert_vectors(self.vectors(TEXTS))
        self.assert_vectors(self.vectors(TEXTS, encoding_format="float"))
        self.assert_vectors(self.vectors(TEXTS[0]), VECTORS[:1])
        answer = self.client.embeddings.create(model="minilm@1", input=TEXTS[0], encoding_format="base64")
        value = base64.b64decode(answer.data[0].embedding)
        self.assert_vectors([struct.unpack(f"<{len(value) // 4}f", value)], VECTORS[:1])
        self.assertEqual(answer.usage.prompt_tokens, len(self.server.ids(TEXTS[0])))

    def test_token_arrays_are_those_of_this_model(self):
        arrays = [self.server.ids(text) for text in TEXTS[:3]]
        self.assert_vectors(self.vectors(arrays), VECTORS[:3])
        self.assert_vectors(self.vectors(arrays[0]), VECTORS[:1])
        with self.assertRaisesRegex(openai.BadRequestError, "check_embedding_ctx_length=False"):
            self.vectors(arrays[0][1:-1])

    def test_declared_widths_are_cut_and_normalised_again(self):
        for width in (256, 128, 384):
            self.assert_vectors(self.vectors(TEXTS, dimensions=width), [unit(vector[:width]) for vector in VECTORS])
        with self.assertRaisesRegex(openai.BadRequestError, r"trained to be cut to \[256, 128\]") as refused:
            self.vectors(TEXTS, dimensions=4)
        self.assertEqual(refused.exception.param, "dimensions")

    def test_the_extra_fields(self):
        [vector] = self.vectors(TEXTS[0], extra_body={"input_type": "query"})
        self.assert_vectors(self.vectors(PROMPT + TEXTS[0]), [vector])
        self.assert_vectors(self.vectors(TEXTS[0], extra_body={"prompt_name": "query"}), [vector])
        self.assert_vectors(self.vectors(TEXTS[0], extra_body={"input_type": "document"}), VECTORS[:1])
        long = "one two three four five " * 200
        self.assertNotEqual(self.vectors(long), self.vectors(long, extra_body={"truncate": "start"}))
        with self.assertRaisesRegex(openai.BadRequestError, "takes 256"):
            self.vectors(long, extra_body={"truncate": "error"})

    def test_bytes_keep_cosines_and_bits_their_order(self):
        [one, other] = self.vectors(TEXTS[:2], encoding_format="float", extra_body={"output_dtype": "int8"})
        cosine = sum(a * b for a, b in zip(VECTORS[0], VECTORS[1]))
        self.assertAlmostEqual(sum(a * b for a, b in zip(one, other)) / 127**2, cosine, delta=0.02)
        # The client makes floats of all numbers.
        [bits] = self.vectors(TEXTS[0], encoding_format="float", extra_body={"output_dtype": "ubinary"})
        [vector] = self.vectors(TEXTS[0])
        # Of its own it asks for base64, and reads floats in whatever string comes.
        self.assertEqual(self.vectors(TEXTS[0], extra_body={"output_dtype": "ubinary"}), [bits])
        self.assertEqual([int(byte) >> (7 - place) & 1 for byte in bits for place in range(8)], [int(value > 0) for value in vector])

    def test_async(self):
        async def ask():
            async with openai.AsyncOpenAI(base_url=f"{self.server.url}/v1", api_key="unused", max_retries=0) as client:
                answer = await client.embeddings.create(model="minilm", input=TEXTS)
                return [one.embedding for one in answer.data]

        self.assert_vectors(asyncio.run(ask()))

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["minilm"])
        self.assertEqual(self.client.models.retrieve("minilm@1").id, "minilm@1")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("other")

    def test_each_refusal_has_its_class(self):
        long = ["one two three four five " * 100] * 100
        for expected, code, param, given, fields in (
            (openai.BadRequestError, None, "input", "", {}),
            (openai.BadRequestError, None, "encoding_format", "a", {"encoding_format": "hex"}),
            (openai.BadRequestError, None, "output_dtype", "a", {"extra_body": {"output_dtype": "int4"}}),
            (openai.NotFoundError, "model_not_found", "model", "a", {"model": "other"}),
            (openai.ConflictError, "space_mismatch", None, "a", {"extra_headers": {"x-sextant-space": "fedcba9876543210"}}),
            # The client has no class of its own for 413, and one for all from 500.
            (openai.APIStatusError, None, "input", ["a"] * 2049, {}),
            (openai.InternalServerError, "deadline_exceeded", None, long, {"extra_headers": {"x-request-timeout-ms": "1"}}),
        ):
            with self.subTest(expected=expected.__name__, param=param):
                with self.assertRaises(expected) as refused:
                    self.client.embeddings.create(**{"model": "minilm", "input": given} | fields)
                self.assertEqual((refused.exception.code, refused.exception.param), (code, param))
                self.assertTrue(refused.exception.request_id)
        with self.assertRaises(openai.NotFoundError):
            self.client.post("/completions", body={}, cast_to=object)
        with self.assertRaises(openai.APITimeoutError):
            self.client.with_options(timeout=0.001).embeddings.create(model="minilm", input=long)
        # Until the server has seen that nobody waits, its one place is taken.
        self.client.with_options(max_retries=5).embeddings.create(model="minilm", input="a")

    @contextlib.contextmanager
    def full(self):
        """While it lasts the server has no place; what is given frees it."""
        # Equal ones would be computed once.
        long = json.dumps({"inputs": [f"{number} one two three four five " * 100 for number in range(300)]}).encode()
        head = f"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(long)}\r\n\r\n"

        def waiting():
            with urllib.request.urlopen(f"{self.server.url}/metrics", timeout=60) as answer:
                lines = answer.read().decode().splitlines()
            return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("sextant_queue_items{"))

        def until(wanted):
            end = time.monotonic() + 60
            while bool(waiting()) != wanted:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.02)

        with socket.create_connection(tuple(self.server.address.split(":")), timeout=60) as connection:
            connection.sendall(head.encode() + long)
            until(True)
            # What a caller who is gone has asked for leaves the queue, and its place is free.
            yield lambda: (connection.close(), until(False))

    def test_a_full_server_is_tried_again_when_it_says(self):
        with self.full() as free:
            with self.assertRaises(openai.RateLimitError) as refused:
                self.vectors(TEXTS[0])
            self.assertGreaterEqual(int(refused.exception.response.headers["retry-after"]), 1)
            self.assertEqual(refused.exception.code, "overloaded")
            patient = self.client.with_options(max_retries=2)
            wanted, waits = patient._calculate_retry_timeout, []

            def wait(*given):
                # How long the client would wait, and is not made to.
                waits.append((wanted(*given), float(given[2]["retry-after"])))
                free()
                return 0

            patient._calculate_retry_timeout = wait
            self.assert_vectors([patient.embeddings.create(model="minilm", input=TEXTS[0]).data[0].embedding], VECTORS[:1])
            [(waited, told)] = waits
            self.assertEqual(waited, told)


class Keys(ClientTest):
    KEYS = (
        ("search", "--role=embed", "--model=minilm"),
        ("elsewhere", "--role=embed", "--model=other"),
        ("prometheus", "--role=metrics"),
        ("slow", "--role=embed", "--tokens-per-second=1", "--tokens-burst=1"),
    )

    def test_the_client_sends_its_key_and_each_refusal_has_its_class(self):
        def ask(key, text="a"):
            with openai.OpenAI(base_url=f"{self.server.url}/v1", api_key=key, max_retries=0) as client:
                return client.embeddings.create(model="minilm", input=text).data[0].embedding

        self.assertEqual(len(ask(self.keys["search"])), len(VECTORS[0]))
        # It owes the tokens of the first for minutes.
        self.assertEqual(len(ask(self.keys["slow"], "a " * 200)), len(VECTORS[0]))
        for key, expected, code in (
            ("unused", openai.AuthenticationError, "invalid_api_key"),
            (self.keys["elsewhere"], openai.PermissionDeniedError, None),
            (self.keys["prometheus"], openai.PermissionDeniedError, None),
            (self.keys["slow"], openai.RateLimitError, "rate_limit_exceeded"),
        ):
            with self.subTest(expected=expected.__name__):
                with self.assertRaises(expected) as refused:
                    ask(key)
                self.assertEqual(refused.exception.code, code)


class LangChain(ClientTest):
    def embeddings(self, **fields):
        return OpenAIEmbeddings(model="minilm", base_url=f"{self.server.url}/v1", api_key="unused", max_retries=0, **fields)

    def test_texts(self):
        embeddings = self.embeddings(check_embedding_ctx_length=False)
        self.assert_vectors(embeddings.embed_documents(TEXTS))
        self.assert_vectors([embeddings.embed_query(TEXTS[0])], VECTORS[:1])
        self.assert_vectors(asyncio.run(embeddings.aembed_documents(TEXTS)))
        cut = self.embeddings(check_embedding_ctx_length=False, dimensions=128)
        self.assert_vectors(cut.embed_documents(TEXTS), [unit(vector[:128]) for vector in VECTORS])

    def test_another_tokenizers_ids_are_refused(self):
        # The ids that it sends by default are those of OpenAI's vocabulary. It fetches that; LlamaIndex has it in its package.
        folder = pathlib.Path(llama_index.core.__file__).parent / "_static/tiktoken_cache"
        before, os.environ["TIKTOKEN_CACHE_DIR"] = os.environ.get("TIKTOKEN_CACHE_DIR"), str(folder)
        try:
            for text in TEXTS:
                with self.assertRaisesRegex(openai.BadRequestError, "check_embedding_ctx_length=False"):
                    self.embeddings().embed_query(text)
        finally:
            if before is None:
                del os.environ["TIKTOKEN_CACHE_DIR"]
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = before


if __name__ == "__main__":
    unittest.main()
