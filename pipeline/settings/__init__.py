"""The settings of each stage: one frozen dataclass a stage, and nothing else knows a default.

The command-line options, the recipe files, the fingerprint and the provenance in every file
derive from these classes; :mod:`.fields` says how a field is declared and checked.
"""

from .codes import ClusterSettings, CodesSettings, DataSettings, MachineSettings, PlaceSettings
from .deployment import (
    DoorSettings,
    ExplainSettings,
    ExportSettings,
    PredictSettings,
    ServeSettings,
)
from .fields import LARGEST, RENAMED, allowed, as_dict, from_mapping, setting
from .finetune import FinetuneSettings
from .heads import (
    METHODS,
    METRICS,
    AdviseSettings,
    CompareSettings,
    CurveSettings,
    FitSettings,
    HeadSettings,
)
from .labels import LabelSettings, LabelsSettings, NextSettings, TableSettings
from .reports import LayersSettings, MapSettings, ReportSettings, RunsSettings

__all__ = [
    "LARGEST",
    "METHODS",
    "METRICS",
    "RENAMED",
    "AdviseSettings",
    "ClusterSettings",
    "CodesSettings",
    "CompareSettings",
    "CurveSettings",
    "DataSettings",
    "DoorSettings",
    "ExplainSettings",
    "ExportSettings",
    "FinetuneSettings",
    "FitSettings",
    "HeadSettings",
    "LabelSettings",
    "LabelsSettings",
    "LayersSettings",
    "MachineSettings",
    "MapSettings",
    "NextSettings",
    "PlaceSettings",
    "PredictSettings",
    "ReportSettings",
    "RunsSettings",
    "ServeSettings",
    "TableSettings",
    "allowed",
    "as_dict",
    "from_mapping",
    "setting",
]
