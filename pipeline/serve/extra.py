"""Whether the packages that the servers need are installed; imports none of them."""

from __future__ import annotations

import importlib.util

from ..errors import SettingsError

_PACKAGES = ("fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart")


def need_extra() -> None:
    """Say how to install what the servers need.

    Raises
    ------
    SettingsError
        The extra is not installed.
    """
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise SettingsError(
            f"This needs {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not "
            "installed.",
            expected="the extra 'serve'",
            todo=".venv/bin/python -m pip install -c constraints.txt -e '.[serve]'",
        )
