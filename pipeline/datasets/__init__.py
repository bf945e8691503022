"""Data sets: where the images are, what they are labelled, how they are split.

First in the flow: ``manifest → codes → heads → results``. Nothing here decodes an image or
imports a framework. ``download`` and ``unpack`` are imported from their own modules, so that who
has the images pays for neither.
"""

from .file_kinds import IMAGE_SUFFIXES
from .manifest import Manifest, Reject, load_manifest
from .registry import REGISTRY, Registered, locate
from .split_words import SPLITS
from .splits import cut, cut_val, resplit, uncut

__all__ = [
    "IMAGE_SUFFIXES",
    "REGISTRY",
    "SPLITS",
    "Manifest",
    "Registered",
    "Reject",
    "cut",
    "cut_val",
    "load_manifest",
    "locate",
    "resplit",
    "uncut",
]
