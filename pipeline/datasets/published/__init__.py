"""Data sets in the form in which they were published: files of known names that are read together.

Each reader finds the files of one form and joins them to one table: a column of files, one of
classes, one of splits. What follows is what follows for every table.
"""

from __future__ import annotations

from ...errors import DataError
from ...settings import DataSettings
from ..beside import say_unlisted
from ..listing import Listing
from ..phrases import few
from ..resolve import Index
from ..tables import read_table
from ..tree import Node
from .annotated import find_annotated
from .attributes import find_attributes
from .form import Form
from .keyed import find_keyed
from .numbered import find_numbered
from .objects import find_objects
from .voc import find_voc

__all__ = ["read_objects", "read_published"]


def read_published(
    node: Node, ask: DataSettings, *, given: str, holding: str = ""
) -> Listing | None:
    """Read a set whose files have the names of a published form; None where it has none.

    Parameters
    ----------
    node : Node
        The folder.
    given : str
        What the user named as DATA, for commands.
    holding : str
        Only a form that this file is part of.

    Raises
    ------
    DataError
        The form is known and its files do not fit together, or an image has several labels.
    """
    if not node.n_images:
        return None
    for find in (find_keyed, find_attributes, find_voc, find_numbered, find_annotated):
        try:
            form = find(node, ask)
        except DataError:
            if holding:
                continue  # it is about other files
            raise
        if form is not None and (not holding or holding in form.files):
            return _listing(form, node, ask, given)
    return None


def read_objects(node: Node, ask: DataSettings, *, given: str) -> Listing | None:
    """Read the classes of the objects that are marked in the images (YOLO, XML, LabelMe).

    Raises
    ------
    DataError
        An image shows objects of several classes, and LABEL is not given.
    """
    form = find_objects(node, ask) if node.n_images else None
    return None if form is None else _listing(form, node, ask, given)


def _listing(form: Form, node: Node, ask: DataSettings, given: str) -> Listing:
    index = Index.of(node, node.path, "", free=False)
    listing = read_table(form.source, form.sheet, form.roles, index, ask, given=given)
    say_unlisted(listing, node, few(form.files, 3))
    return listing
