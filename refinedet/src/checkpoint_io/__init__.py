"""Readers of other people's checkpoints: every container gives a plain dictionary of NumPy arrays.

`read_checkpoint` (reader.py) tells the containers apart; torch_file.py and safe_pickle.py read PyTorch's files and
pickles without PyTorch; vgg_names.py maps the names of a VGG-16 and of a whole detector to the network's,
resnet_names.py those of a ResNet; writer.py writes what came out.

Not a copy of another model's file: the names differ.
"""
from .reader import Checkpoint, read_checkpoint

__all__ = ["Checkpoint", "read_checkpoint"]
