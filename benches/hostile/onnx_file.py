"""As much of ONNX's protobuf format as a hostile graph needs, written without a library. Numbers of fields are those of onnx.proto."""

from __future__ import annotations

import struct

FLOAT, INT64, BOOL = 1, 7, 9
_GRAPH, _INT = 5, 2
OPSET = 17


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def field(number: int, value: int | str | bytes) -> bytes:
    """A number, or what has a length: a text or a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    payload = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def fields(number: int, values) -> bytes:
    return b"".join(field(number, value) for value in values)


def node(operator: str, inputs: list[str], output: str, *attributes: bytes, domain: str = "") -> bytes:
    return fields(1, inputs) + field(2, output) + field(4, operator) + fields(5, attributes) + field(7, domain)


def int_attribute(name: str, value: int) -> bytes:
    return field(1, name) + field(3, value) + field(20, _INT)


def graph_attribute(name: str, graph: bytes) -> bytes:
    return field(1, name) + field(6, graph) + field(20, _GRAPH)


def tensor(name: str, kind: int, shape: list[int], payload: bytes) -> bytes:
    return fields(1, shape) + field(2, kind) + field(8, name) + field(9, payload)


def integers(name: str, shape: list[int], *values: int) -> bytes:
    return tensor(name, INT64, shape, struct.pack(f"<{len(values)}q", *values))


def floats(name: str, *values: float) -> bytes:
    return tensor(name, FLOAT, [len(values)], struct.pack(f"<{len(values)}f", *values))


def value(name: str, kind: int, shape: list[int | str]) -> bytes:
    """An input or an output; a name in its shape is a size that may vary."""
    sizes = b"".join(field(1, field(1 if isinstance(size, int) else 2, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, sizes)))


def graph(name: str, nodes, inputs, outputs, constants=()) -> bytes:
    return fields(1, nodes) + field(2, name) + fields(5, constants) + fields(11, inputs) + fields(12, outputs)


def function(domain: str, name: str, nodes) -> bytes:
    """An operator with the input `x` and the output `y`."""
    sets = field(9, operator_set("", OPSET)) + field(9, operator_set(domain, 1))
    return field(1, name) + field(4, "x") + field(5, "y") + fields(7, nodes) + sets + field(10, domain)


def operator_set(domain: str, version: int) -> bytes:
    return field(1, domain) + field(2, version)


def model(graph: bytes, *functions: bytes, domain: str = "nested") -> bytes:
    sets = field(8, operator_set("", OPSET)) + (field(8, operator_set(domain, 1)) if functions else b"")
    return field(1, 8) + field(7, graph) + sets + fields(25, functions)
