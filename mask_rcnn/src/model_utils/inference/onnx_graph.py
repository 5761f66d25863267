# Same as faster_rcnn/src/model_utils/inference/onnx_graph.py
"""ONNX files in two parts: the graph, which the configuration shapes, and the weights, which the checkpoint holds anyway.

    ModelProto: graph (7): initializer (5), repeated: dims (1), repeated; data_type (2); name (8); raw_data (9)

The second part comes from the checkpoint at each run, so what is kept of an export is small and fits all checkpoints of a
configuration.
"""
from collections.abc import Mapping

import numpy as np

from ..weights.protobuf import bytes_field, field_head, int_field, read_fields, text_of

GRAPH, INITIALIZER = 7, 5
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9
FLOAT = 1


def without_weights(model: bytes, weights: Mapping[str, np.ndarray]) -> tuple[bytes, list[str]]:
    """Return the model without the initializers that are weights, and their names.

    ValueError if one has other values there: the export has computed with it, and the graph fits these weights only.
    """
    data, rest, names = memoryview(model), [], []
    for part in read_fields(data):
        if part.number != GRAPH:
            rest.append(bytes(data[part.start:part.end]))
            continue
        kept = []
        for field in read_fields(data, part.value, part.end):
            name = _name_of(data, field.value, field.end) if field.number == INITIALIZER else None
            if name is None or name not in weights:
                kept.append(data[field.start:field.end])
            elif data[field.start:field.end] != bytes_field(INITIALIZER, _tensor(name, weights[name])):
                raise ValueError(f"{name} has other values in the exported file")
            else:
                names.append(name)
        rest.append(bytes_field(GRAPH, b"".join(kept)))
    return b"".join(rest), names


def with_weights(graph: bytes, weights: Mapping[str, np.ndarray]) -> bytes:
    """Return the whole model. The graph is there twice then, and Protobuf merges the two: the second adds initializers."""
    tensors = [bytes_field(INITIALIZER, _tensor(name, value)) for name, value in weights.items()]
    return b"".join([graph, field_head(GRAPH, sum(map(len, tensors))), *tensors])


def _name_of(data: memoryview, start: int, end: int) -> str | None:
    return next((text_of(data, field) for field in read_fields(data, start, end) if field.number == NAME), None)


def _tensor(name: str, value: np.ndarray) -> bytes:
    """A float32 array as TensorProto, in the order in which MindSpore writes the fields."""
    dims = b"".join(int_field(DIMS, size) for size in value.shape)
    content = np.ascontiguousarray(value, "<f4").tobytes()
    return b"".join([dims, int_field(DATA_TYPE, FLOAT), bytes_field(NAME, name.encode()), bytes_field(RAW_DATA, content)])
