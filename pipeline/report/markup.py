"""HTML built from values: what is a plain string is escaped, so that no name can become markup."""

from __future__ import annotations

import html
import json
import re
from typing import Any

_VOID = frozenset({"meta", "br", "hr"})
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Html(str):
    """Text that is markup already; everything else is escaped where it is put into a page."""

    __slots__ = ()


def joined(*children: Any) -> Html:
    """Put children one after the other.

    Parameters
    ----------
    *children
        :class:`Html` as it is, None left out, lists and tuples in turn, anything else as escaped
        text. Control characters and halves of surrogate pairs, which no page may hold, become
        replacement characters.
    """
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, list | tuple):
            parts.append(joined(*child))
        elif child is not None:
            parts.append(html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(child))))
    return Html("".join(parts))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Build an element.

    Parameters
    ----------
    name : str
        Of the element; never from data.
    *children
        As :func:`joined` takes them.
    **attributes
        ``class_`` and ``for_`` lose their underscore, other underscores become hyphens; None and
        False leave the attribute out, True gives it no value.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = key.rstrip("_").replace("_", "-")
        parts.append(spelled if value is True else f'{spelled}="{joined(str(value))}"')
    start = f"<{' '.join(parts)}>"
    return Html(start if name in _VOID else f"{start}{joined(*children)}</{name}>")


def data_block(value: Any, *, name: str) -> Html:
    """Embed `value` as JSON that a script can read and that cannot end its own element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Html(f'<script type="application/json" id="{html.escape(name)}">{text}</script>')
