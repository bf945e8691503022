"""Images in arrays and tables: ``.npz``, ``.h5``, ``.parquet``, ``.arrow``; unpacked once to files.

Everything after the manifest reads files, so the images are written out, once, into the data root,
in a folder that is named by the digest of what it came from and of how that is read. It is done by
a child process with a limit on its memory: these files come from strangers, and the libraries that
read them do not expect hostile ones. Pickles would run code, and are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from ..errors import DataError, command_line
from ..files import make_folder, sync_folder, sync_tree
from ..progress import Progress, silent
from .digests import hash_files
from .file_kinds import is_image, is_junk
from .matlab import MATLAB_SUFFIX
from .phrases import few
from .pixel_tables import is_pixel_table
from .room import writing

ARRAY_SUFFIXES = (".npz", ".h5", ".hdf5", ".parquet", ".arrow", ".feather")
VERSION = b"2"  # of how arrays and tables of pixels are read: what is written out is kept for good
_PICKLES = (".pkl", ".pickle", ".pt", ".pth")
_IDX = re.compile(r"idx[13][-_.]?ubyte(\.gz)?$")
_BINARY = re.compile(r"(data_batch_\d+|test_batch|train|test|(train|test|unlabeled)_[xy])\.bin")
_MOST_FILES = 2000
NOTE = ".unpacked.json"
_LIMIT_S = 3600


def arrays_in(folder: Path) -> list[Path]:
    """Find the arrays of a folder that holds no image file; empty where there is one.

    Parameters
    ----------
    folder : Path
        Looked at down to three levels.
    """
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        level = len(Path(place).relative_to(folder).parts)
        folders[:] = [] if level >= 3 else sorted(name for name in folders if not is_junk(name))
        for name in sorted(files):
            if is_image(name):
                return []
            if not is_junk(name) and is_array(Path(place) / name):
                found.append(Path(place) / name)
    return found[:_MOST_FILES]


def is_array(path: Path) -> bool:
    """Tell whether a file holds arrays of images that are read: by its name or its first lines."""
    name = path.name.lower()
    if name.endswith(ARRAY_SUFFIXES) or _IDX.search(name):
        return True
    if name.endswith(".npy"):
        return not is_pickle(str(path))
    if name.endswith((".csv", ".tsv")):
        return is_pixel_table(path)
    if name.endswith(".bin"):
        return bool(_BINARY.fullmatch(name))
    return name.endswith(MATLAB_SUFFIX) and _has_pictures(path)


def parts_of(path: Path) -> list[Path]:
    """Give the files that belong to one of arrays: images and labels are in several."""
    name = path.name.lower()
    if not (_IDX.search(name) or name.endswith((".npy", ".bin"))):
        return [path]
    found = [one for one in sorted(path.parent.iterdir()) if one.is_file() and is_array(one)]
    return [one for one in found if one == path or _kind(one) == _kind(path)][:_MOST_FILES]


def _kind(path: Path) -> str:
    return "idx" if _IDX.search(path.name.lower()) else path.suffix.lower()


def _has_pictures(path: Path) -> bool:
    """Tell whether a MATLAB file holds numbers of three or four dimensions."""
    from scipy.io import whosmat

    try:
        return any(len(shape) in (3, 4) and min(shape[:2]) > 1 for _, shape, _ in whosmat(path))
    except Exception:  # no such file, as is said where it is read
        return False


def unpack_arrays(
    files: list[Path], name: str, data_root: Path, *, progress: Progress = silent
) -> Path:
    """Write the images of array files out, unless they are there; give the folder.

    Raises
    ------
    DataError
        The files cannot be read, hold no images or no labels, or need something not installed.
    NoSpaceError
        The disk has no room.
    """
    digest = hashlib.sha256(VERSION)
    for path in files:
        memory = data_root / ".archives" / f"{path.name[:100]}.npz"
        hashed = hash_files(path.parent, [path.name], memory, progress=progress)
        if hashed.faults:
            raise DataError(
                f"{path} cannot be read: {hashed.faults[0]}.",
                expected="a file of images",
                todo="fetch it again, or correct its permissions",
            )
        digest.update(path.name.encode("utf-8", "surrogateescape") + hashed.hex[0])
    target = data_root / f"{name}-{digest.hexdigest()[:12]}"
    if target.exists():
        return target
    with writing(target):
        make_folder(data_root)
        with FileLock(data_root / f".{target.name}.lock"):
            if target.exists():
                return target
            for left in data_root.glob(f".{target.name}.unpacking-*"):
                shutil.rmtree(left, ignore_errors=True)
            place = Path(tempfile.mkdtemp(prefix=f".{target.name}.unpacking-", dir=data_root))
            try:
                (place / "whole").mkdir()
                _child(files, place / "whole")
                names = few([path.name for path in files], 3)
                note = f"The images of {names} were written out as files, in {target}."
                said = place / "whole" / ".notes"
                notes = said.read_text("utf-8").split("\n") if said.exists() else []
                said.unlink(missing_ok=True)
                held = json.dumps([note, *notes])
                (place / "whole" / NOTE).write_text(held, encoding="utf-8")
                sync_tree(place / "whole")
                (place / "whole").replace(target)
                sync_folder(data_root)
            finally:
                shutil.rmtree(place, ignore_errors=True)
    return target


def _child(files: list[Path], folder: Path) -> None:
    package = __name__.rpartition(".")[0]
    top = Path(__file__).parents[2] if package.startswith("pipeline.") else None
    code = f"import sys; from {package}.unpacking import run; run(sys.argv[1], sys.argv[2:])"
    environment = dict(os.environ)
    if top is not None:
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(top), *filter(None, [environment.get("PYTHONPATH", "")])]
        )
    paths = [str(path.absolute()) for path in files]
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder), *paths],
            env=environment, capture_output=True, timeout=_LIMIT_S, check=False,
        )  # fmt: skip
        returned, said = done.returncode, done.stderr.decode("utf-8", "replace").strip()
    except subprocess.TimeoutExpired:
        returned, said = 1, f"it took more than {_LIMIT_S} s"
    problem = folder / ".problem"
    if problem.exists():
        found, expected, todo = problem.read_text("utf-8").split("\n")[:3]
        raise DataError(found, expected=expected, todo=todo)
    if returned:
        reason = said.splitlines()[-1][:300] if said else f"the reader ended with {returned}"
        raise DataError(
            f"{few([path.name for path in files], 3)} cannot be read: {reason}.",
            expected="complete files of images and labels",
            todo="fetch them again, or write the images out as files",
        )


def is_pickle(path: str) -> bool:
    """Tell whether a file begins as a pickle of protocol 2 to 5 does, or is NumPy's of objects."""
    try:
        with open(path, "rb") as stream:  # noqa: PTH123
            head = stream.read(256)
    except OSError:
        return False
    if head.startswith(b"\x93NUMPY"):
        return bool(re.search(rb"'descr': '[|<>=]?O", head))
    return len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def array_problem(path: Path, arrays: list[str]) -> DataError:
    """Say what arrays there are that are not read."""
    names = [name for name in arrays if name.lower().endswith(_PICKLES) or is_pickle(name)]
    shown = few([Path(name).name for name in arrays], 4)
    if names:
        return DataError(
            f"{path} holds no image files, but {shown}: pickles, which run code when they are "
            "opened, and are not read.",
            expected=f"image files, or arrays in {', '.join(ARRAY_SUFFIXES)}",
            todo="in the program that made it: numpy.savez('set.npz', train_images=x, "
            "train_labels=y); then DATA=set.npz",
        )
    return DataError(
        f"{path} holds no image files, but {shown}.",
        expected=f"image files, or arrays in {', '.join(ARRAY_SUFFIXES)}",
        todo=command_line("data", {"DATA": arrays[0]}),
    )
