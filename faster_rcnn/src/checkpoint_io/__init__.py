"""Readers of other people's checkpoints: every container gives a plain dictionary of NumPy arrays.

`read_checkpoint` (reader.py) tells the containers apart; torch_file.py and safe_pickle.py read PyTorch's files and
pickles without PyTorch; resnet_names.py maps the names of an ImageNet ResNet to those of the backbone; writer.py writes
what came out.
"""
from .reader import Checkpoint, read_checkpoint

__all__ = ["Checkpoint", "read_checkpoint"]
