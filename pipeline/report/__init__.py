"""A report to read and pass on: one self-contained HTML file, and the same in Markdown.

Stands right of everything that measures: it reads result records and predictions, and the images
for small pictures, and imports neither scikit-learn nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..context import Context
from ..files import write_atomic
from ..settings import ReportSettings
from .gather import gather

__all__ = ["write_report"]


def write_report(
    context: Context,
    comparison: str,
    settings: ReportSettings,
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Path, Path]:
    """Write the report on a comparison from the records of the same data set.

    Parameters
    ----------
    context : Context
        The images, for their pictures; records lie in its folder, and there the report goes.
    comparison : str
        Name of the comparison's record, ``compare-...``.
    settings : ReportSettings
        How many pictures.
    known : mapping, optional
        Records by kind that are known to be current; the others are looked for.

    Returns
    -------
    html, markdown : Path
        ``report-....html`` and ``report-....md``.

    Raises
    ------
    ResultError
        A record is damaged, or the comparison's runs are no longer what it compared.
    """
    # Drawing takes most of a second to import, so a mistake is told before.
    evidence = gather(context, comparison, known)
    from .markdown import as_markdown
    from .page import as_html
    from .pictures import make_thumbnails
    from .sections import compose, wanted_pictures

    report = compose(evidence, settings)
    large, small = wanted_pictures(report)
    shown = set(list(dict.fromkeys([*large, *small]))[: settings.pictures])
    large, small = ([path for path in paths if path in shown] for paths in (large, small))
    pictures = make_thumbnails(
        context.manifest,
        large,
        small,
        cache=context.cache,
        workers=context.machine.workers,
        progress=context.progress,
    )
    stem = context.folder / comparison.replace("compare", "report", 1)
    html, markdown = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("html", "md"))
    write_atomic(html, as_html(report, pictures, large).encode("utf-8", "replace"))
    write_atomic(markdown, as_markdown(report).encode("utf-8", "replace"))
    return html, markdown
