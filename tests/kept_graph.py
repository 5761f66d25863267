"""Graphs for ONNX Runtime out of a file that export.py wrote, so that tests of the runtime need no export of their own."""
import importlib
from pathlib import Path


def keep_exported(model: str, config, checkpoint: Path, onnx: Path) -> None:
    """Keep the graph of an ONNX file as an earlier run of infer.py with this checkpoint would have. config: that of both."""
    def module(name):
        return importlib.import_module(f"{model}.src.model_utils.{name}")

    weights = module("weights.mindspore_file").read_mindspore(checkpoint)
    graph, used = module("inference.onnx_graph").without_weights(onnx.read_bytes(), weights)
    kept, size = module("inference.kept_graphs"), module("data.preprocess").build_preprocess(config).size.box()
    shapes = {name: value.shape for name, value in weights.items()}
    kept.keep_graph(checkpoint, kept.graph_name(config, size), kept.Graph(graph, shapes, used))
