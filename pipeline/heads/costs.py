"""What each confusion costs: a matrix, read from a CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cells import plain
from ..errors import HeadError

EXAMPLE = "a header ',{0},{1}' and the rows '{0},0,1' and '{1},5,0'"


def asked_costs(cost: str, class_names: Sequence[str]) -> NDArray[np.float64] | None:
    """Read the file that COST names, as :func:`read_costs`; None where it names none."""
    return read_costs(Path(cost), class_names) if cost else None


def read_costs(path: Path, class_names: Sequence[str]) -> NDArray[np.float64]:
    """Read a cost matrix.

    Parameters
    ----------
    path : Path
        CSV: the first row names the predicted classes, the first column the true ones, in any
        order; one number per cell.
    class_names : sequence of str
        K names, each of which has a row and a column.

    Returns
    -------
    float64 (K, K)
        Cost of calling true class k (row) class j (column).

    Raises
    ------
    HeadError
        The file cannot be read, a class is missing or unknown, a cell is not a finite number.
    """
    expected = "CSV: " + EXAMPLE.format(*list(class_names)[:2])
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HeadError(f"COST={path}: {error}.", expected=expected) from error
    columns = _names(rows[0][1:], class_names) if rows else []
    names = _names([row[0] for row in rows[1:]], class_names)
    for found, what in ((columns, "columns"), (names, "rows")):
        if sorted(found) != sorted(class_names):
            raise HeadError(
                f"COST={path} has {what} for {', '.join(found) or 'no class'}.",
                expected=f"one for each of {', '.join(class_names)}; {expected}",
            )
    costs = np.empty((len(class_names), len(class_names)))
    for name, row in zip(names, rows[1:], strict=True):
        try:
            values = [float(cell) for cell in row[1:]]
        except ValueError as error:
            raise HeadError(f"COST={path}, row {name}: {error}.", expected=expected) from error
        if len(values) != len(columns) or not np.isfinite(values).all():
            raise HeadError(
                f"COST={path}, row {name}: {len(values)} numbers, not all usable.",
                expected=f"{len(columns)} finite numbers",
            )
        at = [columns.index(one) for one in class_names]
        costs[list(class_names).index(name)] = np.array(values)[at]
    if (costs < costs.diagonal()[:, None]).any():
        raise HeadError(
            f"COST={path}: a mistake costs less than the right answer.",
            expected="in each row the smallest cost in the column of the same class",
        )
    return costs


def _names(cells: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """Give the classes that cells name: as they stand, trimmed, or as our own CSV spells them."""
    trimmed = [cell.strip() for cell in cells]
    for found in (list(cells), [plain(cell) for cell in cells]):
        if sorted(found) == sorted(class_names):
            return found
    return trimmed
