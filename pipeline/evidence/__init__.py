"""Evidence on a data set, from its cached codes: suspicious labels, layers, and a map.

Stands right of codes and heads, left of the report. Each builder writes one record beside the
results of the data set, and takes the one that is there where its fingerprint agrees; nothing
that fits anything is imported then.
"""

from pipeline.evidence.gather import evidence
from pipeline.evidence.layers import probe_layers
from pipeline.evidence.map import map_codes
from pipeline.evidence.mislabelled import find_mislabelled

__all__ = ["evidence", "find_mislabelled", "map_codes", "probe_layers"]
