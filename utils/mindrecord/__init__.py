"""Convert annotations of several formats to MindRecord, and check data sets. formats/ has a module for each format.

convert.py and check.py are the command lines; this package is the Python interface. Neither needs MindSpore.
"""
from .conversion import convert, ensure
from .errors import DataError, Problem, warn_of
from .formats import all_formats, find_format
from .manifest import load_manifest, mindrecord_files
from .readers import read_annotations, read_ground_truth
from .records import ImageRecord, records_to_coco
from .splitting import Split

__all__ = ["DataError", "ImageRecord", "Problem", "Split", "all_formats", "convert", "ensure", "find_format", "load_manifest",
           "mindrecord_files", "read_annotations", "read_ground_truth", "records_to_coco", "warn_of"]
