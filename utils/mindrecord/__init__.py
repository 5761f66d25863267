"""COCO, Pascal VOC and text annotations -> MindRecord, and a doctor for data sets.

convert.py and check.py are the commands; this is the same for Python. Neither needs MindSpore.
"""
from .conversion import convert, ensure
from .errors import DataError, Problem
from .manifest import load_manifest, mindrecord_files
from .readers import read_annotations
from .records import ImageRecord, records_to_coco

__all__ = ["DataError", "ImageRecord", "Problem", "convert", "ensure", "load_manifest", "mindrecord_files",
           "read_annotations", "records_to_coco"]
