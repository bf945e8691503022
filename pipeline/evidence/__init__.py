"""Evidence on a data set, from its cached codes: suspicious labels, layers, and a map.

Stands right of codes and heads, left of the report. Each builder writes one record next to the
results of the data set, and takes the one that is there where its fingerprint agrees; nothing
that fits anything is imported then.
"""

from .labels import find_mislabelled
from .layers import probe_layers
from .map import map_codes

__all__ = ["find_mislabelled", "map_codes", "probe_layers"]
