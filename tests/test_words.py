"""The words of messages, help, docstrings and documentation: standard English, standard terms."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Phrases that a reader of scikit-learn's or PyTorch's documentation would stop at.
FORBIDDEN = (
    r"\bmend(s|ed|ing)?\b", r"\banew\b", r"\bhollow\b", r"\bwholly\b", r"\brightly\b",
    r"\btold from\b", r"\bis no setting\b", r"\b(is|are) left open\b", r"\bmemory of digests\b",
    r"\bsurely (better|worse|behind|ahead)\b", r"\bgiven beside\b", r"\bwhole or not at all\b",
    r"receiver's operating", r"\bcan be believed\b", r"\bnone of \d+ runs fits\b",
    r"\b(row|line|column|label|bar) an? (image|class|run|layer|split|file|finding)\b",
    r"\b(images|seconds|files) an? (class|second|core|call|task|batch)\b",
    r"\b(threads|processes)\b.*\bone a core\b", r"\bare no (classes|names|numbers)\b",
)  # fmt: skip
PATTERN = re.compile("|".join(FORBIDDEN), re.IGNORECASE)


def said(path: Path) -> list[str]:
    """Give the texts of a file: of Python the strings and comments, else all of it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text.splitlines()
    comments = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    strings = [
        node.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return comments + [" ".join(one.split()) for one in strings]


def texts() -> list[Path]:
    """List the package, its pages and its documentation."""
    found = [
        path
        for pattern in ("pipeline/**/*", "recipes/*.toml", "docs/**/*.md", "cache/README.md")
        for path in ROOT.glob(pattern)
        if path.suffix in (".py", ".js", ".html", ".toml", ".md") and "_build" not in path.parts
    ]
    return [*found, ROOT / "Makefile", ROOT / "CONTRIBUTING.md"]


def test_no_phrase_makes_a_reader_stop():
    paths = texts()
    assert len(paths) > 200
    found = [
        f"{path.relative_to(ROOT)}: ...{line[max(0, hit.start() - 40) : hit.end() + 40]}..."
        for path in paths
        for line in said(path)
        for hit in PATTERN.finditer(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "phrase",
    ["one row an image", "It can be mended.", "VEIWS is no setting", "Threads; 0: one a core.",
     "150 images a second", "None of 12 runs fits.", "Written whole or not at all"],
)  # fmt: skip
def test_such_phrases_are_found(phrase):
    assert PATTERN.search(phrase)
