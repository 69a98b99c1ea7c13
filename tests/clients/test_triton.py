"""Triton's HTTP client: the Open Inference Protocol in JSON and in binary."""

import unittest

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from server import TEXTS, VECTORS, ClientTest


class Triton(ClientTest):
    def setUp(self):
        self.client = triton.InferenceServerClient(self.server.address, connection_timeout=60, network_timeout=60)
        self.addCleanup(self.client.close)

    def infer(self, tensors, binary, **fields):
        inputs = []
        for name, values, datatype in tensors:
            values = numpy.array(values, dtype=numpy.object_ if datatype == "BYTES" else numpy.int64)
            inputs.append(triton.InferInput(name, values.shape, datatype))
            inputs[-1].set_data_from_numpy(values, binary_data=binary)
        outputs = [triton.InferRequestedOutput("embedding", binary_data=binary)]
        return self.client.infer("minilm", inputs, outputs=outputs, **fields)

    def test_texts_in_json_and_binary(self):
        for binary in (False, True):
            for shape in ((-1,), (-1, 1)):
                texts = numpy.array(TEXTS, dtype=numpy.object_).reshape(shape)
                answer = self.infer([("text", texts, "BYTES")], binary, request_id="7", model_version="1")
                self.assert_vectors(answer.as_numpy("embedding").tolist())
                said = answer.get_response()
                self.assertEqual((said["model_name"], said["model_version"], said["id"]), ("minilm", "1", "7"))
                self.assertEqual("data" in said["outputs"][0], not binary)

    def test_the_clients_own_choice_of_output(self):
        given = triton.InferInput("text", [len(TEXTS)], "BYTES")
        given.set_data_from_numpy(numpy.array(TEXTS, dtype=numpy.object_))
        self.assert_vectors(self.client.infer("minilm", [given]).as_numpy("embedding").tolist())

    def test_token_ids_with_their_mask(self):
        rows = [self.server.ids(text) for text in TEXTS[:5]]
        width = max(map(len, rows))
        ids = [row + [0] * (width - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        for binary in (False, True):
            answer = self.infer([("input_ids", ids, "INT64"), ("attention_mask", mask, "INT64")], binary)
            self.assert_vectors(answer.as_numpy("embedding").tolist(), VECTORS[:5])

    def test_parameters(self):
        answer = self.infer([("text", TEXTS[:2], "BYTES")], True, parameters={"dimensions": 128, "truncate": "end"})
        self.assertEqual(answer.as_numpy("embedding").shape, (2, 128))
        with self.assertRaisesRegex(InferenceServerException, "no prompt `none`"):
            self.infer([("text", TEXTS[:2], "BYTES")], True, parameters={"prompt_name": "none"})

    def test_health_and_metadata(self):
        self.assertTrue(self.client.is_server_live() and self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready("minilm") and self.client.is_model_ready("minilm", "1"))
        self.assertFalse(self.client.is_model_ready("minilm", "2") or self.client.is_model_ready("other"))
        self.assertIn("binary_tensor_data", self.client.get_server_metadata()["extensions"])
        self.assertEqual(self.client.get_model_metadata("minilm", "1")["outputs"][0]["shape"], [-1, 384])
        [entry] = self.client.get_model_repository_index()
        self.assertEqual((entry["name"], entry["version"], entry["state"]), ("minilm", "1", "READY"))

    def test_refusals_are_told(self):
        for tensors, message in (
            ([("texts", TEXTS[:1], "BYTES")], "there is no input `texts`"),
            ([("input_ids", [[7, 8]], "INT64")], "not framed"),
            ([("text", [""], "BYTES")], "empty string"),
        ):
            with self.assertRaisesRegex(InferenceServerException, message):
                self.infer(tensors, True)
        with self.assertRaisesRegex(InferenceServerException, "`other` is not served"):
            self.client.get_model_metadata("other")


if __name__ == "__main__":
    unittest.main()
