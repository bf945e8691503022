"""Sphinx: MyST pages, numpydoc, one executed notebook; reference pages are made from the code."""

import dataclasses
from pathlib import Path

import cnn_codes
from cnn_codes import api, settings
from cnn_codes.api import STAGES

HERE = Path(__file__).parent
project = "cnn-codes"
copyright = "the cnn-codes developers"
release = version = cnn_codes.__version__
extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
html_theme = "furo"
html_title = f"cnn-codes {release}"
html_static_path: list[str] = []
myst_enable_extensions = ["dollarmath", "fieldlist", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # the docstrings have types and shapes
nitpicky = False

GENERATED = HERE / "reference" / "generated"


def cell(text: object) -> str:
    """Make a text fit for a cell of a table."""
    return " ".join(str(text).replace("|", "\\|").replace("*", "\\*").split())


def python_page() -> str:
    """Give every public name with its docstring."""
    lines = ["# Python", "", "Everything here is imported from `cnn_codes`.", ""]
    for name in sorted(set(cnn_codes.__all__) - {"__version__"}):
        thing = getattr(cnn_codes, name)
        kind = "autoclass" if isinstance(thing, type) else "autofunction"
        where = f"{thing.__module__}.{thing.__qualname__}"
        lines += [f"## {name}", "", "```{eval-rst}", f".. {kind}:: {where}", "```", ""]
    lines += ["## The stages", "", "`from cnn_codes import api`: a function for each make target."]
    for name in api.__all__:
        if callable(getattr(api, name)):
            lines += ["", "```{eval-rst}", f".. autofunction:: cnn_codes.api.{name}", "```"]
    return "\n".join(lines)


def settings_page() -> str:
    """Give every setting: its default, its values, what it is for."""
    lines = [
        "# Settings",
        "",
        "A setting is a make variable, an option and a keyword alike: `make svm VIEWS=flip` is",
        "`cnn-codes svm --views flip`. *Changes* says what a setting affects: the numbers (it is",
        "part of the fingerprint), only the speed, or only the place of files.",
        "",
    ]
    for name, cls in sorted(vars(settings).items()):
        if not dataclasses.is_dataclass(cls) or not name.endswith("Settings"):
            continue
        lines += [f"## {(cls.__doc__ or name).splitlines()[0].rstrip('.')}", ""]
        lines += ["| setting | default | meaning | changes |", "|---|---|---|---|"]
        for field in dataclasses.fields(cls):
            default = field.default
            shown = ",".join(default) if isinstance(default, tuple) else default
            meaning = field.metadata["help"]
            if field.metadata.get("choices"):
                meaning += f" ({', '.join(field.metadata['choices'])})"
            changes = {"bytes": "numbers"}.get(field.metadata["affects"], field.metadata["affects"])
            default_cell = f"`{cell(shown)}`" if str(shown) else ""
            lines.append(
                f"| `{field.name.upper()}` | {default_cell} | {cell(meaning)} | {changes} |"
            )
        lines.append("")
    return "\n".join(lines)


def commands_page() -> str:
    """Give every command, what it does and which settings it takes."""
    lines = [
        "# Commands",
        "",
        "Each is a make target (`make svm`) and, where the package is installed, a subcommand of",
        "`cnn-codes` (`cnn-codes svm`). Exit codes: 0; 2 for a mistake that can be corrected, with",
        "one message that says what was found, what was expected and what to do next; 130 after",
        "Ctrl-C, with nothing lost; 1 and a traceback for a defect of the program.",
        "",
    ]
    for name, stage in STAGES.items():
        names = ", ".join(f"`{one.upper()}`" for one in stage.fields)
        lines += [f"## {name}", "", f"{cell(stage.help).capitalize()}.", "", f"Takes {names}.", ""]
    return "\n".join(lines)


def write_reference() -> None:
    """Write the pages that come from the code."""
    GENERATED.mkdir(parents=True, exist_ok=True)
    pages = {"python": python_page, "settings": settings_page, "commands": commands_page}
    for name, page in pages.items():
        path, text = GENERATED / f"{name}.md", page()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def left_out(app, what: str, name: str, thing: object, skip: bool, options: object) -> bool:
    """Leave out the methods that scikit-learn adds for metadata routing."""
    return skip or name == "get_metadata_routing" or name.endswith("_request")


def setup(app) -> None:
    """Connect what sphinx calls."""
    app.connect("autodoc-skip-member", left_out)


write_reference()
