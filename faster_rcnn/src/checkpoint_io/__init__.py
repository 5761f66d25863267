"""Readers of other people's checkpoints, where every container gives a plain dictionary of NumPy arrays; names; writers.

`read_checkpoint` (reader.py) tells the containers apart; torch_file.py, safe_pickle.py and safetensors_file.py read PyTorch's
files, pickles and safetensors without their libraries. resnet_names.py and inception_names.py map the names of ImageNet networks
to those of the backbone, detector_names.py those of whole detectors, whose classes and layouts detector_weights.py turns.
writer.py and torch_writer.py write what came out.
"""
from .reader import Checkpoint, read_checkpoint

__all__ = ["Checkpoint", "read_checkpoint"]
