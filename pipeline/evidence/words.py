"""The probes of the layers as a table, from their record alone, so that a report shows the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..notation import scientific
from ..results.tables import Cell, Column, Figures, Table, number_cell, percent_cell


def layers_table(record: Mapping[str, Any]) -> Table:
    """Lay out the layers, first to last; ``*`` marks the best."""
    return layers_figures(record).plain()


def layers_figures(record: Mapping[str, Any]) -> Figures:
    """Give the accuracy of the probe of each layer, first to last."""
    rows = [
        [
            Cell(str(one["layer"]), mark="best" if one["layer"] == record["best"] else ""),
            number_cell(one.get("code_dim"), 0),
            percent_cell(one["accuracy"]),
            percent_cell(one.get("sd")),
            number_cell(one.get("log_loss")),
            Cell(scientific(one.get("C")), one.get("C")),
        ]
        for one in record["layers"]
    ]
    columns = [
        Column("Layer", numeric=False),
        Column("Code length", "numbers per image"),
        Column("Accuracy, %", "cross-validated on train"),
        Column("SD", "standard deviation over the folds, in points"),
        Column("Log-loss", "in nats; lower is better"),
        Column("C", "regularisation; smaller is stronger"),
    ]
    return Figures(columns, rows)
