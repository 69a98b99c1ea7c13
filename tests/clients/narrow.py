"""The contract as it is for one server: names and widths that it has in place of all that could be.

What is refused although it fits openapi.yaml is refused because of the model, and what the model has is known here. So whatever
fits must be taken, and whatever does not must be refused. Nothing is put in that a server would take besides.
"""

from __future__ import annotations

import copy
import json

from server import WIDTHS, Server

NAMES = ["minilm", "minilm@1", "minilm@stable"]


def narrow(document: dict, server: Server) -> dict:
    """`document` for `server`, which serves `minilm@1`."""
    # Apart from each other, what YAML's anchors made one.
    document = json.loads(json.dumps(document))
    components = document["components"]
    schemas = components["schemas"]
    arrays = [server.ids(text) for text in ("one", "two three")]
    one_text, one_array, mixed = copy.deepcopy(schemas["Inputs"]["oneOf"])
    texts = {**mixed, "items": mixed["items"]["oneOf"][0]}
    one_array.update(enum=arrays)
    mixed["items"]["oneOf"][1].update(enum=arrays)
    of_texts = {"oneOf": [one_text, texts]}
    of_both = {"oneOf": [one_array, mixed]}

    schemas["Dimensions"] = {"enum": [384, *WIDTHS, None]}
    schemas["PromptName"] = {"enum": ["query", None]}
    schemas["Decode"]["properties"]["ids"]["oneOf"][0]["items"] = {"type": "integer", "minimum": 0, "maximum": 30521}
    schemas["Decode"]["properties"]["ids"]["oneOf"][1]["items"]["items"] = {"type": "integer", "minimum": 0, "maximum": 30521}
    for name in ("CreateEmbeddings", "Embed", "Similarity", "Tokenize", "Decode"):
        fields = schemas[name]["properties"]
        fields["model"] = {"enum": NAMES if name == "CreateEmbeddings" else [*NAMES, None]}
        if "ood" in fields:
            # It has no drift reference.
            fields["ood"] = {"enum": [False, None]}
        for owner in (fields, fields.get("parameters", {}).get("properties", {})):
            if "prompt_name" in owner:
                owner["prompt_name"] = schemas["PromptName"]
    for name, inputs in (("CreateEmbeddings", "input"), ("Embed", "inputs")):
        whole = schemas[name]
        prompted, bare = copy.deepcopy(whole), copy.deepcopy(whole)
        prompted["properties"][inputs] = of_texts
        bare["properties"][inputs] = of_both
        without_prompt(bare["properties"])
        schemas[name] = {"oneOf": [prompted, bare]}
    schemas["VersionNumber"] = {"enum": [1]}
    whole = schemas["InferRequest"]
    of_texts, of_ids = tensors(arrays)
    prompted, bare = copy.deepcopy(whole), copy.deepcopy(whole)
    prompted["properties"]["inputs"] = {"enum": of_texts}
    bare["properties"]["inputs"] = {"enum": of_ids}
    without_prompt(bare["properties"]["parameters"]["properties"])
    schemas["InferRequest"] = {"oneOf": [prompted, bare]}

    components["parameters"]["Space"]["schema"] = {"enum": [server.space()]}
    for path, item in document["paths"].items():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                if parameter.get("name") == "model":
                    alone = path.startswith("/admin/") or "{version}" in path
                    parameter["schema"] = {"enum": NAMES[:1] if alone else NAMES}
                if parameter.get("name") == "version":
                    parameter["schema"] = {"enum": ["1", "stable"]}
            if path.endswith("/infer"):
                # Bytes behind JSON are tried by Triton's client, and by tests of each way in which they can be wrong.
                del operation["requestBody"]["content"]["application/octet-stream"]
                operation["parameters"] = [one for one in operation["parameters"] if one.get("name") != "Inference-Header-Content-Length"]
    return document


def without_prompt(fields: dict) -> None:
    """None goes before token ids."""
    for field in {"prompt_name", "input_type"} & fields.keys():
        fields[field] = {"enum": [None]}


def tensors(arrays: list[list[int]]) -> tuple[list[list[dict]], list[list[dict]]]:
    """Inputs of texts and of token ids whose shapes are those of their data, as no schema can say."""

    def tensor(name, datatype, shape, data):
        return {"name": name, "datatype": datatype, "shape": shape, "data": data}

    [short, long] = arrays
    pad = [0] * (len(long) - len(short))
    rows = [2, len(long)]
    mask = [[1] * len(short) + pad, [1] * len(long)]
    return [
        [tensor("text", "BYTES", [2], ["one", "two three"])],
        [tensor("text", "BYTES", [2, 1], [["one"], ["\u0000 \U0001f9ed"]])],
    ], [
        [tensor("input_ids", "INT64", [1, len(long)], long)],
        [tensor("input_ids", "INT64", rows, [short + pad, long]), tensor("attention_mask", "INT64", rows, mask)],
    ]
