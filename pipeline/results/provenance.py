"""Where numbers come from: versions of the packages that made them, and the machine."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "cnn-codes", "numpy", "scipy", "scikit-learn", "torch", "torchvision", "timm",
    "onnxruntime", "h5py", "pillow", "simplejpeg", "joblib", "safetensors",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of the packages that make the numbers, as far as installed; imports none."""
    return dict(_installed())


@cache
def _installed() -> dict[str, str]:
    """Read them once a process: each costs a parse of the package's description."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Give the processor's name, its cores and the system: what times depend on."""
    name = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", described.read_text(), re.MULTILINE)
        name = match.group(1).strip() if match else name
    return {"cpu": name, "cores": os.cpu_count(), "system": platform.system()}
