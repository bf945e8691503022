"""What a report consists of, whatever it is written as: sections of texts, tables and pictures.

The modules that say something build these; ``page`` writes them as HTML, ``markdown`` as Markdown.
All strings are plain text; escaping is the writers' business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..results.tables import Cell, Column

__all__ = [
    "Bullets",
    "Cell",
    "Chart",
    "Charts",
    "Column",
    "Commands",
    "Facts",
    "Folded",
    "Gallery",
    "Heat",
    "Missing",
    "Picture",
    "Projection",
    "Report",
    "Section",
    "Table",
    "Text",
]


@dataclass(frozen=True)
class Text:
    """A paragraph; `role` is ``lead`` (the verdict), ``body`` or ``note`` (small print)."""

    text: str
    role: str = "body"


@dataclass(frozen=True)
class Bullets:
    """Sentences in a list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Missing:
    """Evidence that is not there: what it would show, and the command that makes it."""

    text: str
    command: str


@dataclass(frozen=True)
class Facts:
    """Names and values, as many in a line as there is room for."""

    pairs: Sequence[tuple[str, str]]
    title: str = ""


@dataclass(frozen=True)
class Commands:
    """Lines for a shell, to be read or copied."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its header.

    Attributes
    ----------
    caption : str
    columns : sequence of Column
    rows : sequence of sequences of Cell
    key : str
        Names it in the page, unique.
    sortable : bool
        Whether the reader may sort it.
    note : str
        Below the table: what the marks mean.
    matrix : bool
        Set small and square, as a confusion matrix.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    key: str
    sortable: bool = False
    note: str = ""
    matrix: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Attributes
    ----------
    key : str
        Names it in the page, unique.
    svg : str
        From :mod:`cnn_codes.report.svg`: markup.
    alt : str
        What it shows, for who cannot see it.
    title, caption : str
        Above and below.
    """

    key: str
    svg: str
    alt: str
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Charts:
    """Blocks side by side, as many as the page is wide: charts, small tables."""

    items: Sequence[Chart | Table]
    small: bool = False


@dataclass(frozen=True)
class Folded:
    """Blocks that are there when asked for: the figures behind a chart."""

    summary: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Heat:
    """Where in an image a class is seen.

    Attributes
    ----------
    evidence : sequence of sequence of float
        A row of numbers for each row of regions; what is positive speaks for the class.
    box : sequence of float
        Left, top, width and height of the regions together, as shares of the image's sides.
    """

    evidence: Sequence[Sequence[float]]
    box: Sequence[float]


@dataclass(frozen=True)
class Picture:
    """One or two images with what is said of them.

    Attributes
    ----------
    paths : sequence of str
        Images, relative to the data's root.
    title : str
        The main thing, a few words.
    lines : sequence of str
        More of it.
    heat : Heat, optional
        Drawn over a second copy of the first image.
    """

    paths: Sequence[str]
    title: str
    lines: Sequence[str] = ()
    heat: Heat | None = None


@dataclass(frozen=True)
class Gallery:
    """Pictures in rows."""

    pictures: Sequence[Picture]
    caption: str = ""


@dataclass(frozen=True)
class Projection:
    """The codes in two dimensions, the image under the pointer shown.

    Attributes
    ----------
    charts : sequence of Chart
        Drawings of the same images; their points carry ``data-i``, the index into the lists.
    paths, labels, splits : sequences
        Of each image: where it is, its class's index, its split.
    class_names : sequence of str
    """

    charts: Sequence[Chart]
    paths: Sequence[str]
    labels: Sequence[int]
    splits: Sequence[str]
    class_names: Sequence[str]


Block = (
    Text
    | Bullets
    | Missing
    | Facts
    | Commands
    | Table
    | Chart
    | Charts
    | Folded
    | Gallery
    | Projection
)


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; `key` names it in the page."""

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """The whole: what it is of, the verdict, key facts, the sections in order.

    Attributes
    ----------
    title : str
        What the reader calls the data set: its folder's name.
    digest : str
        Tells it from other folders of that name; set small after the title; may be empty.
    """

    title: str
    verdict: Sequence[str]
    more: Sequence[str]
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    digest: str = ""
