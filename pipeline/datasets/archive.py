"""Unpack a stranger's archive: nothing outside the folder, no bomb, whole or not at all.

Members are written by our own loop, one for zip and tar alike, and not by ``extractall``: the
``data`` filter of tarfile can be escaped through links in every Python before 3.11.13, and zip
has no filter. Here no link exists on the disk while files are being written, so no path can lead
through one; links are made at the end, and only to what the archive itself brought.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PureWindowsPath
from typing import IO

from filelock import FileLock

from ..errors import DataError
from ..files import sync_folder
from ..progress import Meter, Progress, silent
from .listing import is_junk
from .room import need_room, writing

__all__ = ["unpack"]

MAX_RATIO = 100  # unpacked bytes a packed byte; photographs have about 1, drawings up to 30
FREE_BYTES = 256 << 20  # unpacked bytes that are allowed whatever the ratio
_BLOCK_BYTES = 1 << 18
_MAX_LINK_BYTES = 4096
_MEMBER_BYTES = 512  # what each member counts besides its content, against bombs of empty files
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, LZMAError, NotImplementedError,
)  # fmt: skip


def unpack(archive: Path, target: Path, *, progress: Progress = silent) -> Path:
    """Unpack `archive` into the new folder `target`, unless `target` is there.

    A single folder that wraps everything is left out. Hidden files and what macOS adds are not
    unpacked. Several processes may call it at once: the others wait for the first.

    Parameters
    ----------
    archive : Path
        A .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz.
    target : Path
        Folder to make; it appears whole or not at all.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    DataError
        Not an archive, not whole, encrypted; a member that leads out of the folder or is no file,
        folder or inner link; more than ``MAX_RATIO`` times its own size.
    NoSpaceError
        The disk has no room for it.
    """
    if target.exists():
        return target
    try:
        archive.open("rb").close()
    except OSError as error:
        raise DataError(
            f"The archive {archive} cannot be read ({error.strerror}).",
            expected="a file this user may read",
            todo="mend its permissions",
        ) from error
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if target.exists():
                return target
            prefix = f".{target.name}.unpacking-"
            for left in target.parent.glob(f"{prefix}*"):  # of a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            workplace = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
            try:
                folder = workplace / "whole"
                folder.mkdir()
                _unpack_into(archive, folder.resolve(), progress)
                _innermost(folder).replace(target)
                sync_folder(target.parent)
            finally:
                shutil.rmtree(workplace, ignore_errors=True)
    return target


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str  # file, folder, link (to a file or folder), other
    n_bytes: int
    link: str = ""  # relative to the archive's top
    content: IO[bytes] | None = None


def _unpack_into(archive: Path, folder: Path, progress: Progress) -> None:
    packed = archive.stat().st_size
    allowed = max(FREE_BYTES, packed * MAX_RATIO)
    links: list[tuple[Path, Path]] = []
    spent = 0
    try:
        with progress(f"unpacking {archive.name}", packed, "B") as meter:
            for member in _members(archive, folder, meter):
                path = _inside(folder, member.name, archive)
                if path is None:
                    continue
                spent += _MEMBER_BYTES + member.n_bytes
                if spent > allowed:
                    raise DataError(
                        f"{archive} unpacks to more than {MAX_RATIO} times its own size.",
                        expected="images, which hardly compress",
                        todo="if it is no bomb, unpack it by hand and point DATA= at the folder",
                    )
                if member.kind == "folder":
                    path.mkdir(parents=True, exist_ok=True)
                elif member.kind == "file":
                    need_room(folder, member.n_bytes, archive.name)
                    _write(member, path)
                elif member.kind == "link":
                    goal = _inside(folder, member.link, archive)
                    if goal is not None:
                        links.append((path, goal))
                else:
                    raise _refused(archive, member.name, "is a device, a pipe or the like")
    except _DAMAGE as error:
        raise _damaged(archive, str(error)) from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _damaged(archive, f"{error.filename} is a file and a folder at once") from error
    _link(links)


def _inside(folder: Path, name: str, archive: Path) -> Path | None:
    """Path of a member within `folder`; None for junk. Refuses what leads out of it."""
    name = name.replace("\\", "/")  # archives made on Windows
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or PureWindowsPath(name).anchor or "\0" in name:
        raise _refused(archive, name, "leads out of the folder it is unpacked into")
    if not parts or any(is_junk(part) for part in parts):
        return None
    return folder.joinpath(*parts)


def _members(archive: Path, folder: Path, meter: Meter) -> Iterator[_Member]:
    if archive.name.lower().endswith(".zip"):
        yield from _zip_members(archive, folder, meter)
    else:
        yield from _tar_members(archive, meter)


def _zip_members(archive: Path, folder: Path, meter: Meter) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        need_room(folder, sum(info.file_size for info in infos), archive.name)
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 1:
                raise DataError(
                    f"{archive} is encrypted.",
                    expected="an archive without a password",
                    todo="unpack it by hand and point DATA= at the folder",
                )
            if info.is_dir():
                yield _Member(info.filename, "folder", 0)
            elif kind == stat.S_IFLNK:
                if info.file_size > _MAX_LINK_BYTES:
                    raise _refused(archive, info.filename, "is a link of absurd length")
                goal = opened.read(info).decode("utf-8", "surrogateescape")
                yield _Member(info.filename, "link", 0, _beside(info.filename, goal))
            elif kind in (0, stat.S_IFREG):
                with opened.open(info) as content:
                    yield _Member(info.filename, "file", info.file_size, content=content)
            else:
                yield _Member(info.filename, "other", 0)
            meter.advance(info.compress_size)


def _tar_members(archive: Path, meter: Meter) -> Iterator[_Member]:
    with archive.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as opened:
        done = 0
        while (info := opened.next()) is not None:
            if info.isdir():
                yield _Member(info.name, "folder", 0)
            elif info.isreg():
                content = opened.extractfile(info)
                assert content is not None
                with closing(content):
                    yield _Member(info.name, "file", info.size, content=content)
            elif info.issym():
                yield _Member(info.name, "link", 0, _beside(info.name, info.linkname))
            elif info.islnk():
                yield _Member(info.name, "link", 0, info.linkname)
            else:
                yield _Member(info.name, "other", 0)
            opened.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            meter.advance(raw.tell() - done)
            done = raw.tell()
        # tarfile takes a header cut in two for the end; the real end is a block of zeros.
        assert opened.fileobj is not None
        opened.fileobj.seek(opened.offset)
        ending = opened.fileobj.read(512)
        if len(ending) < 512 or any(ending):
            raise EOFError("it ends without its end mark")
        while opened.fileobj.read(_BLOCK_BYTES):
            pass  # to the end of the packed stream, where its checksum is


def _beside(name: str, goal: str) -> str:
    """Path, from the archive's top, of what a symbolic link at `name` points to."""
    if goal.startswith("/"):
        return goal
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), goal))


def _write(member: _Member, path: Path) -> None:
    assert member.content is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("wb") as stream:
        while block := member.content.read(_BLOCK_BYTES):
            written += len(block)
            if written > member.n_bytes:
                break
            stream.write(block)
    if written != member.n_bytes:
        raise EOFError(f"{member.name} should have {member.n_bytes:,} bytes")


def _link(links: list[tuple[Path, Path]]) -> None:
    """Make the links, files' as second names: nothing but folders is ever a symbolic link."""
    for path, goal in links:
        if path.exists() or path.is_symlink():
            continue
        if path.parent.resolve() != path.parent or goal.resolve() != goal:
            continue  # by way of another link, from where ".." would lead elsewhere
        path.parent.mkdir(parents=True, exist_ok=True)
        if goal.is_file():
            try:
                os.link(goal, path)
            except OSError:  # a disk that knows no second names
                shutil.copyfile(goal, path)
        elif goal.is_dir():
            path.symlink_to(os.path.relpath(goal, path.parent), target_is_directory=True)


def _innermost(folder: Path) -> Path:
    """Follow folders that hold one folder and nothing else, as long as that one holds folders."""
    inside = list(folder.iterdir())
    while len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink():
        deeper = list(inside[0].iterdir())
        if not any(
            one.is_dir() or one.suffix.lower() in (".txt", ".csv", ".tsv") for one in deeper
        ):
            break
        folder, inside = inside[0], deeper
    return folder


def _refused(archive: Path, name: str, why: str) -> DataError:
    return DataError(
        f"{archive}: its member {name!r} {why}; nothing was unpacked.",
        expected="an archive of files and folders",
        todo="don't trust this archive; if you must, unpack it elsewhere and look at it",
    )


def _damaged(archive: Path, reason: str) -> DataError:
    with archive.open("rb") as stream:
        head = stream.read(16)
    page = " (it begins like a web page)" if head.lstrip()[:1] == b"<" else ""
    return DataError(
        f"{archive} ({archive.stat().st_size:,} bytes) cannot be unpacked: {reason}{page}.",
        expected="a whole .zip or .tar archive",
        todo="fetch it again: half a download looks like this",
    )
