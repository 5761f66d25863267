"""Make kept ONNX Runtime graphs from a file of export.py, so that tests of the runtime need not export again."""
import importlib
from pathlib import Path


def keep_exported(model: str, config, checkpoint: Path, onnx: Path) -> None:
    """Save the graph of an ONNX file as infer.py with this checkpoint would. config: of the export and of infer.py."""
    def module(name):
        return importlib.import_module(f"{model}.src.model_utils.{name}")

    weights = module("weights.mindspore_file").read_mindspore(checkpoint)
    graph, used = module("inference.onnx_graph").without_weights(onnx.read_bytes(), weights)
    kept, size = module("inference.kept_graphs"), module("data.preprocess").build_preprocess(config).size.box()
    shapes = {name: value.shape for name, value in weights.items()}
    kept.keep_graph(checkpoint, kept.graph_name(config, size), kept.Graph(graph, shapes, used))
