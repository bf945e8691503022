"""From a matplotlib figure to markup that belongs to the page it stands in.

matplotlib writes colours, fonts and names of its own into a drawing. In a page that is light or
dark as its reader likes it, colours have to be the page's variables, text has to stay text in the
page's own letters, and no two elements may have one name. So charts are drawn in stand-in
colours, and the drawing is rewritten: variables in place of colours, attributes in place of
styles (the page's security policy allows none), names only where something refers to them.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ..results.drawing import drawing

__all__ = [
    "ACCENT",
    "GRID",
    "INK",
    "MUTED",
    "PAPER",
    "SERIES",
    "new_figure",
    "rewritten",
    "theme",
]

# Stand-ins for the page's variables; black itself is what matplotlib leaves out, so none is it.
INK, MUTED, GRID, ACCENT, PAPER = (f"#0101{n:02x}" for n in range(1, 6))
SERIES = tuple(f"#0102{n:02x}" for n in range(1, 9))
_VARIABLES = {
    INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--rule)", ACCENT: "var(--accent)",
    PAPER: "var(--paper)", **{one: f"var(--c{n})" for n, one in enumerate(SERIES, 1)},
}  # fmt: skip
_PX = 72.0  # matplotlib's SVG has 72 units an inch
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONT_SIZE = re.compile(r"([\d.]+)px")
_DEFAULTS = {("stroke-linejoin", "miter"), ("stroke-linecap", "butt"), ("stroke-width", "1")}
_REFERS = re.compile(r"url\(#([^)]+)\)")
_THEME: dict[Any, Any] = {
    "svg.hashsalt": "report", "text.parse_math": False,
    "font.size": 13.0, "axes.labelsize": 12.5, "xtick.labelsize": 12.0, "ytick.labelsize": 12.0,
    "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": GRID,
    "axes.facecolor": "none", "figure.facecolor": "none",
    "xtick.color": GRID, "ytick.color": GRID,
    "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED,
    "grid.color": GRID, "grid.linewidth": 0.8, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "lines.linewidth": 1.6, "lines.solid_capstyle": "round",
}  # fmt: skip


@contextmanager
def theme() -> Iterator[None]:
    """Within the block, figures are drawn in stand-in colours and with text as text."""
    with drawing(**_THEME):
        yield


def new_figure(
    width: int, height: int, *, left: int, right: int, top: int = 10, bottom: int = 44
) -> Figure:
    """Make an empty figure whose axes leave the given margins; all in pixels at full size.

    Margins are given, not found: finding them (constrained layout) takes longer than all else.
    """
    figure = Figure(figsize=(width / _PX, height / _PX))
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, bottom=bottom / height, top=1 - top / height
    )
    return figure


def rewritten(
    figure: Figure, *, key: str, alt: str, points: Mapping[str, Sequence[int]] | None = None
) -> str:
    """Write a figure as an ``svg`` element of a page.

    Parameters
    ----------
    figure : Figure
        Drawn within :func:`theme`.
    key : str
        Begins every name in the drawing; unique in the page.
    alt : str
        What the drawing shows.
    points : mapping, optional
        From the gid of a line of markers to the number that each of its markers gets
        (``data-i``), in order.

    Returns
    -------
    str
        Markup; text from data is escaped.
    """
    stream = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})  # type: ignore[no-untyped-call]
    root = ET.fromstring(stream.getvalue())
    for gid, numbers in (points or {}).items():
        _number_points(root, gid, numbers)
    used = {name for one in root.iter() for name in _references(one)}
    for parent in root.iter():
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for one in root.iter():
        one.tag = one.tag.rpartition("}")[2]
        _restyle(one, used, key)
    box = root.get("viewBox", "0 0 1 1")
    root.attrib.clear()
    width = box.split()[2]
    root.attrib.update({"class": "chart", "viewBox": box, "width": width, "role": "img"})
    root.set("aria-label", alt)
    _unwrap(root)
    return ET.tostring(root, encoding="unicode")


def _number_points(root: ET.Element, gid: str, numbers: Sequence[int]) -> None:
    group = next(one for one in root.iter() if one.get("id") == gid)
    marks = [one for one in group.iter() if one.tag.endswith("}use")]
    for mark, number in zip(marks, numbers, strict=True):
        mark.set("data-i", str(number))


def _references(one: ET.Element) -> Iterator[str]:
    for name, value in one.attrib.items():
        if name.rpartition("}")[2] == "href" and value.startswith("#"):
            yield value[1:]
        yield from _REFERS.findall(value)


def _restyle(one: ET.Element, used: set[str], key: str) -> None:
    """Turn an element's style into attributes, its colours into variables, its names into ours."""
    attributes: dict[str, str] = {}
    for name, value in one.attrib.items():
        plain = name.rpartition("}")[2]
        if plain == "style":
            attributes |= _declared(value)
        elif plain == "id":
            if value in used:
                attributes["id"] = f"{key}-{value}"
        elif plain == "href" and value.startswith("#"):
            attributes["href"] = f"#{key}-{value[1:]}"
        else:
            attributes[plain] = value
    for name, value in attributes.items():
        if name in ("d", "x", "y", "width", "height", "transform", "points"):
            value = _NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value)
        attributes[name] = _REFERS.sub(rf"url(#{key}-\1)", _VARIABLES.get(value, value))
    one.attrib.clear()
    one.attrib.update(attributes)


def _declared(style: str) -> dict[str, str]:
    """Give a style's declarations as attributes; of a font, the size: the page has the family."""
    found: dict[str, str] = {}
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            size = _FONT_SIZE.search(value)
            found["font-size"] = size[1] if size else "12"
            if "bold" in value or "600" in value:
                found["font-weight"] = "600"
        elif name and (name, value) not in _DEFAULTS and name != "stroke-miterlimit":
            found[name] = value
    return found


def _unwrap(root: ET.Element) -> None:
    """Drop groups that hold one thing and say nothing, and all white space between elements."""
    for one in root.iter():
        if one.tag != "text":
            one.text = None
        one.tail = None
        for at, child in enumerate(one):
            while child.tag == "g" and not child.attrib and len(child) == 1:
                child = child[0]
            one[at] = child
