"""CelebA's texts: a row of +1 and -1 for each image, and a text of splits 0, 1 and 2.

``list_attr_celeba.txt`` begins with the number of images and the names of the attributes. Which of
them is the class, the user says.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...settings import DataSettings
from ..tree import Node
from .form import Form, form_of, lines_of, pairs_of

_PARTS = {"0": "train", "1": "val", "2": "test"}


def find_attributes(node: Node, ask: DataSettings) -> Form | None:
    """Find a text of attributes as CelebA's; None where there is none.

    Raises
    ------
    DataError
        A text cannot be read.
    """
    texts = [
        Path(one.path) / name
        for one in node.walk()
        for name in one.texts
        if re.fullmatch(r"(?i)(list|identity)_.*\.txt", name)
    ]
    for path in texts:
        if not path.name.lower().startswith("list_attr"):
            continue
        lines = lines_of(path)
        if len(lines) < 3 or not lines[0].isdigit() or int(lines[0]) != len(lines) - 2:
            continue
        names = lines[1].split()
        rows = [line.split() for line in lines[2:]]
        values = {value for row in rows for value in row[1:]}
        if any(len(row) != len(names) + 1 for row in rows) or not values <= {"1", "-1", "0"}:
            continue
        files = [path.name]
        split: dict[str, str] = {}
        people: dict[str, str] = {}
        for other in texts:
            key = other.name.lower()
            if key.startswith("list_eval_partition"):
                split = {name: _PARTS.get(part, "") for name, part in pairs_of(other).items()}
                files.append(other.name)
            elif key.startswith("identity_"):
                people = pairs_of(other)
                files.append(other.name)
        header = ["file", *names, "split", *(["identity"] if people else [])]
        table = [
            [*row, split.get(row[0], ""), *([people.get(row[0], "")] if people else [])]
            for row in rows
        ]
        return form_of(path, header, table, files, ask, name="attributes of faces (CelebA)",
                       label=-1)  # fmt: skip
    return None
