"""Clients of text-embeddings-inference: Hugging Face's own, LangChain's, LlamaIndex's."""

import asyncio
import unittest

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError
from langchain_huggingface import HuggingFaceEndpointEmbeddings
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

from server import TEXTS, VECTORS, ClientTest


class HuggingFace(ClientTest):
    def test_feature_extraction(self):
        client = huggingface_hub.InferenceClient(self.server.url)
        self.assert_vectors(client.feature_extraction(TEXTS).tolist())
        self.assert_vectors(client.feature_extraction(TEXTS[0], truncate=True).tolist(), VECTORS[:1])
        raw = client.feature_extraction(TEXTS[0], normalize=False)
        self.assertGreater((raw**2).sum(), 2)
        prompted = client.feature_extraction(TEXTS[0], prompt_name="query", truncation_direction="left").tolist()
        self.assertNotEqual(prompted, client.feature_extraction(TEXTS[0]).tolist())
        with self.assertRaises(HfHubHTTPError) as refused:
            client.feature_extraction("one two three " * 200, truncate=False)
        self.assertEqual(refused.exception.response.status_code, 422)
        self.assertEqual(refused.exception.response.json()["error_type"], "Validation")

    def test_similarity(self):
        client = huggingface_hub.InferenceClient(f"{self.server.url}/similarity")
        cosines = client.sentence_similarity(TEXTS[0], TEXTS[:3])
        expected = [sum(a * b for a, b in zip(VECTORS[0], vector)) for vector in VECTORS[:3]]
        self.assert_vectors([cosines], [expected])

    def test_async(self):
        async def ask():
            async with huggingface_hub.AsyncInferenceClient(self.server.url) as client:
                return (await client.feature_extraction(TEXTS)).tolist()

        self.assert_vectors(asyncio.run(ask()))

    def test_langchain(self):
        # It takes a URL no longer, only a model's id; its client is a field.
        embeddings = HuggingFaceEndpointEmbeddings(model="any/model", huggingfacehub_api_token="unused")
        embeddings.client = huggingface_hub.InferenceClient(self.server.url)
        plain = [text for text in TEXTS if "\n" not in text]
        expected = [vector for text, vector in zip(TEXTS, VECTORS) if "\n" not in text]
        self.assert_vectors(embeddings.embed_documents(plain), expected)
        self.assert_vectors([embeddings.embed_query(TEXTS[0])], VECTORS[:1])


class LlamaIndex(ClientTest):
    def test_texts_and_queries(self):
        embeddings = TextEmbeddingsInference(model_name="minilm", base_url=self.server.url, embed_batch_size=10)
        # It takes white space off both ends.
        kept = [(text, vector) for text, vector in zip(TEXTS, VECTORS) if text == text.strip()]
        texts, vectors = map(list, zip(*kept))
        self.assert_vectors(embeddings.get_text_embedding_batch(texts), vectors)
        self.assert_vectors([embeddings.get_query_embedding(texts[0])], vectors[:1])
        self.assert_vectors(asyncio.run(embeddings.aget_text_embedding_batch(texts)), vectors)


if __name__ == "__main__":
    unittest.main()
