# Same as faster_rcnn/src/model_utils/inference/onnx_graph.py
"""Split an ONNX model into its graph and its weights, and join them again.

The graph depends on the configuration only, and the checkpoint already holds the weights. Saving the graph without weights keeps
the file small and lets every checkpoint of the configuration use it. The Protobuf fields involved, with their numbers:

    ModelProto: graph (7): initializer (5), repeated: dims (1), repeated; data_type (2); name (8); raw_data (9)
"""
from collections.abc import Mapping

import numpy as np

from ..weights.protobuf import bytes_field, field_head, int_field, read_fields, text_of

GRAPH, INITIALIZER = 7, 5
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9
FLOAT = 1


def without_weights(model: bytes, weights: Mapping[str, np.ndarray]) -> tuple[bytes, list[str]]:
    """Remove the weights from a model's initializers.

    Args:
        model: a serialised ModelProto.
        weights: {name: array} of the checkpoint.

    Returns:
        The model without these initializers, and their names.

    Raises:
        ValueError: the model holds other values for a weight. The exporter has folded constants into it, so the graph would be
            wrong for any other checkpoint.
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
                raise ValueError(f"{name} differs between the exported file and the checkpoint")
            else:
                names.append(name)
        rest.append(bytes_field(GRAPH, b"".join(kept)))
    return b"".join(rest), names


def with_weights(graph: bytes, weights: Mapping[str, np.ndarray]) -> bytes:
    """Return the complete model from a graph without weights and the weights {name: float array}.

    A second graph field with the initializers is appended; Protobuf parsers merge it into the first.
    """
    tensors = [bytes_field(INITIALIZER, _tensor(name, value)) for name, value in weights.items()]
    return b"".join([graph, field_head(GRAPH, sum(map(len, tensors))), *tensors])


def _name_of(data: memoryview, start: int, end: int) -> str | None:
    return next((text_of(data, field) for field in read_fields(data, start, end) if field.number == NAME), None)


def _tensor(name: str, value: np.ndarray) -> bytes:
    """Serialise an array as a float32 TensorProto, with the fields in MindSpore's order, so that the bytes can be compared."""
    dims = b"".join(int_field(DIMS, size) for size in value.shape)
    content = np.ascontiguousarray(value, "<f4").tobytes()
    return b"".join([dims, int_field(DATA_TYPE, FLOAT), bytes_field(NAME, name.encode()), bytes_field(RAW_DATA, content)])
