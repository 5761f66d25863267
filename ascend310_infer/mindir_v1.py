"""Rewrite a MINDIR of version 3, exported by MindSpore 2.3 to 2.10, as version 1, which MindSpore Lite 2.0 reads.

usage: python mindir_v1.py IN.mindir OUT.mindir

In version 3, some attributes of operators are inputs. Operators that are not in the tables below are refused by name, since Lite
might compute something else for them. A current Lite reads version 3, and does not need this.
"""
import struct
import sys
from pathlib import Path

# Value of the enumeration -> text
FORMATS = {0: b"NCHW", 1: b"NHWC", 2: b"NHWC", 3: b"NCHW"}
# Operator -> inputs that become attributes: (position, names of the attribute). An input without a name is dropped.
BECOME_ATTRIBUTES = {
    "BatchMatMul": ((2, ("transpose_a",)), (3, ("transpose_b",))),
    "BatchNorm": ((5, ("is_training",)), (6, ("epsilon",)), (7, ("momentum",)), (8, ("format",))),
    "BiasAdd": ((2, ("format", "data_format")),),
    "Concat": ((1, ("axis",)),),
    "Gather": ((3, ("batch_dims",)),),
    "MatMul": ((2, ("transpose_a",)), (3, ("transpose_b",))),
    "ReduceSum": ((2, ("keep_dims",)), (3, ())),
    "ResizeNearestNeighbor": ((1, ("size",)), (2, ("align_corners",)), (3, ("half_pixel_centers",))),
    "Softmax": ((1, ("axis",)),),
    "StridedSlice": ((4, ("begin_mask",)), (5, ("end_mask",)), (6, ("ellipsis_mask",)), (7, ("new_axis_mask",)),
                     (8, ("shrink_axis_mask",))),
}
# Operator -> its name in version 1
OLD_NAMES = {"Muls": "Mul", "SumExt": "ReduceSum"}
SAME = {"Add", "Cast", "Conv2D", "Depend", "Div", "Exp", "ExpandDims", "Flatten", "GreaterEqual", "Load", "MakeTuple", "MaxPool",
        "Maximum", "Minimum", "Mul", "ReLU", "Reshape", "Return", "Sigmoid", "Sqrt", "Sub", "Tile", "Transpose", "TupleGetItem",
        "UpdateState"}
# Operators whose scalar inputs become tensors.
ELEMENTWISE = {"Add", "Div", "GreaterEqual", "Maximum", "Minimum", "Mul", "Sub"}
REFERENCE = "REF::"


class ConversionError(Exception):
    """The file cannot be converted; the message is one line."""


def convert(model, pb) -> None:
    """Rewrite the ModelProto in place. pb: the module mind_ir_pb2."""
    if model.mind_ir_version == 1:
        raise ConversionError("it already has version 1")
    if model.mind_ir_version != 3:
        raise ConversionError(f"expected version 3, got {model.mind_ir_version}")
    if len(model.functions):
        raise ConversionError("it has control flow, which version 1 does not support")
    primitives = {item.name: item for item in model.primitives}
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    _refuse_unknown(model, primitives)
    extra = []
    for number, node in enumerate(model.graph.node):
        if not node.op_type.startswith(REFERENCE):
            continue
        primitive = model.primitives.add()
        primitive.CopyFrom(primitives[node.op_type[len(REFERENCE):]])
        operator = OLD_NAMES.get(primitive.op_type, primitive.op_type)
        primitive.name, primitive.op_type, primitive.prim_type = f"{operator}:v1_{number}", operator, 1
        for i, name in enumerate(node.input if operator in ELEMENTWISE else ()):
            if name in constants and _is_scalar(constants[name], pb):
                extra.append(_as_tensor(constants[name], f"v1_{number}_{i}", pb))
                node.input[i] = extra[-1].output[0]
        _move_inputs(node, primitive, constants, pb)
        node.op_type = REFERENCE + primitive.name
    _unshare_weights(model)
    # Constants must precede the nodes that read them.
    nodes = [type(node).FromString(node.SerializeToString()) for node in model.graph.node]
    first = [node for node in nodes if node.op_type == "Constant"]
    del model.graph.node[:]
    model.graph.node.extend(first + extra + [node for node in nodes if node.op_type != "Constant"])
    model.mind_ir_version, model.ir_version = 1, "0.1.1"


def _refuse_unknown(model, primitives) -> None:
    names = {primitives[node.op_type[len(REFERENCE):]].op_type if node.op_type.startswith(REFERENCE) else node.op_type
             for node in model.graph.node}
    unknown = sorted(names - SAME - set(BECOME_ATTRIBUTES) - set(OLD_NAMES) - {"Constant"})
    if unknown:
        raise ConversionError(f"operators that may differ in version 1: {', '.join(unknown)}")


def _is_scalar(node, pb) -> bool:
    kinds = pb.AttributeProto
    return node.attribute[0].type in (kinds.FLOAT, kinds.DOUBLE, kinds.INT32, kinds.INT64)


def _as_tensor(node, name: str, pb):
    """Return a copy of a scalar Constant as a 0-dimensional float32 tensor."""
    value = node.attribute[0]
    kinds = pb.AttributeProto
    number = {kinds.FLOAT: value.f, kinds.DOUBLE: value.d}.get(value.type, value.i)
    made = type(node)()
    made.CopyFrom(node)
    made.name = made.output[0] = name
    attribute = made.attribute[0]
    attribute.Clear()
    attribute.name, attribute.type = value.name, kinds.TENSORS
    tensor = attribute.tensors.add()
    tensor.name, tensor.data_type, tensor.raw_data = "value0", pb.TensorProto.FLOAT, struct.pack("<f", number)
    return made


def _unshare_weights(model) -> None:
    """Give each convolution a weight of its own.

    Lite 2.0 packs a weight once, in the layout of the first convolution's algorithm. For another map size, a second convolution may
    choose a different algorithm and compute wrong results from that layout.
    """
    parameters = {item.name: item for item in model.graph.parameter}
    loads = {node.output[0]: node for node in model.graph.node if node.op_type.startswith(REFERENCE + "Load:")}
    seen, copies = set(), {}
    for number, node in enumerate(model.graph.node):
        if not node.op_type.startswith(REFERENCE + "Conv2D:"):
            continue
        load = loads.get(node.input[1])
        weight = load.input[0] if load else node.input[1]
        if weight not in seen or weight not in parameters:
            seen.add(weight)
            continue
        own = model.graph.parameter.add()
        own.CopyFrom(parameters[weight])
        own.name = f"{weight}_{number}"
        if load:
            copy = type(load)()
            copy.CopyFrom(load)
            copy.name = copy.output[0] = f"{load.output[0]}_{number}"
            copy.input[0] = own.name
            copies[number] = copy
        node.input[1] = copies[number].output[0] if load else own.name
    for number in sorted(copies, reverse=True):     # each before the node that reads it
        model.graph.node.insert(number, copies[number])


def _move_inputs(node, primitive, constants, pb) -> None:
    moved = {}
    for position, names in BECOME_ATTRIBUTES.get(primitive.op_type, ()):
        if position >= len(node.input):
            continue
        if node.input[position] not in constants:
            raise ConversionError(f"{primitive.op_type}: input {position} is not a constant and cannot become an attribute")
        value = constants[node.input[position]].attribute[0]
        moved[position] = names
        for name in names:
            attribute = primitive.attribute.add()
            if "format" in name:
                attribute.type, attribute.s = pb.AttributeProto.STRING, FORMATS[value.i]
            else:
                attribute.CopyFrom(value)
            attribute.name = name
    kept = [name for i, name in enumerate(node.input) if i not in moved]
    del node.input[:]
    node.input.extend(kept)


def main(arguments: list) -> int:
    if len(arguments) != 2:
        asked = {"-h", "--help"} & set(arguments)
        print(__doc__, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    from mindspore.train import mind_ir_pb2 as pb

    source, target = map(Path, arguments)
    try:
        model = pb.ModelProto.FromString(source.read_bytes())
        convert(model, pb)
        target.write_bytes(model.SerializeToString())
    except ConversionError as error:
        print(f"mindir_v1.py: error: {source}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"mindir_v1.py: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except Exception as error:  # protobuf's DecodeError, whose module depends on its version
        print(f"mindir_v1.py: error: {source}: not a MINDIR ({error})", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
