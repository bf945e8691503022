"""Unpack a stranger's archive: nothing outside the folder, no bomb, completely or not at all.

Members are written by our own loop, one for zip and tar alike, and not by ``extractall``: the
``data`` filter of tarfile can be escaped through links in every Python before 3.11.13, and zip
has no filter. Here no link exists on the disk while files are being written, so no path can lead
through one; links are made at the end, and only to what the archive itself brought.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO

from filelock import FileLock

from ..errors import DataError, PipelineError, first_line
from ..files import make_folder, sync_folder, sync_tree
from ..progress import Meter, Progress, silent
from .arrays import NOTE
from .containers import step_for
from .file_kinds import archive_stem, is_archive, is_image, is_junk
from .phrases import few, plural
from .room import need_room, writing
from .tars import GuardedInfo
from .texts import best_encoding

MAX_RATIO = 100  # unpacked bytes a packed byte; photographs have about 1, drawings up to 30
FREE_BYTES = 256 << 20  # unpacked bytes that are allowed whatever the ratio
_BLOCK_BYTES = 1 << 18
_MAX_LINK_BYTES = 4096
_MEMBER_BYTES = 512  # what each member counts besides its content, against bombs of empty files
_MAX_NESTED = 100
_MAX_DEPTH = 60
_METHODS = {
    9: "Deflate64, as Windows Explorer makes of files over 2 GB", 12: "bzip2", 14: "LZMA",
    93: "Zstandard", 95: "XZ", 97: "WavPack", 98: "PPMd", 99: "AES encryption (WinZip, 7-Zip)",
}  # fmt: skip
_MAGIC = (
    (b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"), (b"Rar!\x1a\x07", "RAR"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"), (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"),
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
        Folder to make; it appears completely or not at all.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    DataError
        Not an archive, incomplete, encrypted; a member that leads out of the folder or is no file,
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
            todo="correct its permissions",
        ) from error
    with writing(target):
        make_folder(target.parent)
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
                notes = _unpack_into(archive, folder.resolve(), progress)
                notes += _unpack_inner(folder.resolve(), progress)
                whole = _innermost(folder)
                if notes:
                    (whole / NOTE).write_text(json.dumps(notes), encoding="utf-8")
                sync_tree(folder)
                whole.replace(target)
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


def archive_kind(path: Path) -> str:
    """Name what kind of archive a file is by its first bytes; empty for none."""
    try:
        with path.open("rb") as stream:
            head = stream.read(262 + 8)
    except OSError:
        return ""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return "tar" if head[257:262] == b"ustar" else ""


def unpacked_note(folder: Path) -> list[str]:
    """Give what there is to say about how `folder` was unpacked."""
    try:
        notes = json.loads((folder / NOTE).read_bytes())
    except (OSError, ValueError):
        return []
    return [str(note) for note in notes][:20] if isinstance(notes, list) else []


def _unpack_inner(folder: Path, progress: Progress) -> list[str]:
    """Unpack archives in an archive that holds no image itself, each into a folder of its name."""
    inner = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_junk(name))
        if any(is_image(name) for name in files):
            return []
        inner += [Path(place) / name for name in sorted(files) if is_archive(name)]
    notes = []
    for path in inner[:_MAX_NESTED]:
        goal = path.with_name(archive_stem(path.name))
        if goal.exists():
            continue
        goal.mkdir()
        notes += _unpack_into(path, goal, progress)
        notes.append(f"{path.name} in the archive was unpacked too.")
        path.unlink()
    return notes


def _unpack_into(archive: Path, folder: Path, progress: Progress) -> list[str]:
    packed = archive.stat().st_size
    allowed = max(FREE_BYTES, packed * MAX_RATIO)
    links: list[tuple[Path, Path]] = []
    notes: list[str] = []
    again: dict[Path, None] = {}
    spent = 0
    try:
        with progress(f"unpacking {archive.name}", packed, "B") as meter:
            for member in _members(archive, folder, meter, allowed, notes):
                spent += _MEMBER_BYTES + member.n_bytes
                if spent > allowed:
                    raise _too_much(archive)
                path = _inside(folder, member.name, archive)
                if path is None:
                    continue
                if member.kind == "folder":
                    path.mkdir(parents=True, exist_ok=True)
                elif member.kind == "file":
                    need_room(folder, member.n_bytes, archive.name)
                    if path.exists():
                        again[path] = None
                    _write(member, path)
                elif member.kind == "link":
                    goal = _inside(folder, member.link, archive)
                    if goal is not None:
                        links.append((path, goal))
                else:
                    raise _refused(archive, member.name, "is a device, a pipe or the like")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _damaged(archive, f"{error.filename} is a file and a folder at once") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _refused(archive, "...", "has a name that is too long for this disk") from error
        if error.errno is not None:
            raise  # the disk's own, which is explained where it is written
        raise _damaged(archive, str(error)) from error  # of gzip and bzip2
    except (PipelineError, MemoryError):
        raise
    except Exception as error:  # zipfile and tarfile raise many kinds on damaged data
        raise _damaged(archive, first_line(error)) from error
    _link(links)
    if again:
        shown = few([path.relative_to(folder).as_posix() for path in again])
        notes.append(
            f"{archive.name} holds {plural(len(again), 'name', 'names')} more than once ({shown}); "
            "the last file of each name was taken."
        )
    return notes


def _too_much(archive: Path) -> DataError:
    return DataError(
        f"{archive} unpacks to more than {MAX_RATIO} times its own size.",
        expected="images, which hardly compress",
        todo="if you trust it, unpack it by hand and point DATA= at the folder",
    )


def _inside(folder: Path, name: str, archive: Path) -> Path | None:
    """Path of a member within `folder`; None for junk. Refuses what leads out of it."""
    name = name.replace("\\", "/")  # archives made on Windows
    parts = [part for part in name.split("/") if part not in ("", ".")]
    long = [part for part in parts if len(os.fsencode(part)) > 255]
    if long or len(parts) > _MAX_DEPTH:
        shown = f"{long[0][:60]}..." if long else f"{name[:60]}..."
        why = "has a name of more than 255 bytes" if long else f"is over {_MAX_DEPTH} folders deep"
        raise _refused(archive, shown, why)
    if ".." in parts or PureWindowsPath(name).anchor or "\0" in name:
        raise _refused(archive, name, "leads out of the folder it is unpacked into")
    if not parts or any(is_junk(part) for part in parts):
        return None
    return folder.joinpath(*parts)


def _members(
    archive: Path, folder: Path, meter: Meter, allowed: int, notes: list[str]
) -> Iterator[_Member]:
    if archive_kind(archive) == "zip":
        yield from _zip_members(archive, folder, meter, notes)
    else:
        yield from _tar_members(archive, meter, allowed)


def _zip_names(infos: list[zipfile.ZipInfo], notes: list[str]) -> list[str]:
    """Names of members, decoded by evidence where the archive does not say that they are UTF-8."""
    plain = [info for info in infos if not info.flag_bits & 0x800]
    raw = {info.orig_filename: info.orig_filename.encode("cp437") for info in plain}
    strange = [name for name in raw.values() if not name.isascii()]
    if not strange:
        return [info.filename for info in infos]
    try:
        for name in strange:
            name.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = best_encoding(strange)
        notes.append(
            f"The names in the archive are not UTF-8; they were read as {encoding}, which fits "
            "them best."
        )
    return [
        raw[info.orig_filename].decode(encoding, "replace").replace("\0", "")
        if info.orig_filename in raw
        else info.filename
        for info in infos
    ]


def _zip_members(archive: Path, folder: Path, meter: Meter, notes: list[str]) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        names = _zip_names(infos, notes)
        need_room(folder, sum(info.file_size for info in infos), archive.name)
        for info, name in zip(infos, names, strict=True):
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 1:
                raise DataError(
                    f"{archive} is encrypted.",
                    expected="an archive without a password",
                    todo="unpack it by hand and point DATA= at the folder",
                )
            if info.compress_type not in (0, 8, 12, 14):
                method = _METHODS.get(info.compress_type, f"number {info.compress_type}")
                raise DataError(
                    f"{archive} is packed by a method that Python cannot unpack: {method}.",
                    expected="stored or deflated members",
                    todo=f"unpack it by hand, as with 7z x {archive.name} (7-Zip), and point DATA= "
                    "at the folder",
                )
            if info.is_dir() or name.endswith(("/", "\\")):
                yield _Member(name, "folder", 0)
            elif kind == stat.S_IFLNK:
                if info.file_size > _MAX_LINK_BYTES:
                    raise _refused(archive, name, "is a link of absurd length")
                goal = opened.read(info).decode("utf-8", "surrogateescape")
                yield _Member(name, "link", 0, _beside(name, goal))
            elif kind in (0, stat.S_IFREG):
                with opened.open(info) as content:
                    yield _Member(name, "file", info.file_size, content=content)
            else:
                yield _Member(name, "other", 0)
            meter.advance(info.compress_size)


def _tar_members(archive: Path, meter: Meter, allowed: int) -> Iterator[_Member]:
    with (
        archive.open("rb") as raw,
        tarfile.open(fileobj=raw, mode="r:*", tarinfo=GuardedInfo) as opened,
    ):
        done = 0
        while (info := opened.next()) is not None:
            name = _tar_name(info.name)
            if info.size > allowed:
                raise _too_much(archive)  # before it is skipped or read
            if info.isdir():
                yield _Member(name, "folder", 0)
            elif info.isreg():
                content = opened.extractfile(info)
                assert content is not None
                with closing(content):
                    yield _Member(name, "file", info.size, content=content)
            elif info.issym():
                yield _Member(name, "link", 0, _beside(name, _tar_name(info.linkname)))
            elif info.islnk():
                yield _Member(name, "link", 0, _tar_name(info.linkname))
            else:
                yield _Member(name, "other", 0)
            opened.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            meter.advance(raw.tell() - done)
            done = raw.tell()
        # tarfile takes a header cut in two for the end; the real end is a block of zeros.
        assert opened.fileobj is not None
        opened.fileobj.seek(opened.offset)
        ending = opened.fileobj.read(512)
        if len(ending) < 512 or any(ending):
            raise EOFError("it ends without its end mark")
        left = allowed
        while block := opened.fileobj.read(_BLOCK_BYTES):
            left -= len(block)  # to the end of the packed stream, where its checksum is
            if left < 0:
                raise _too_much(archive)


def _tar_name(name: str) -> str:
    """Decode a name that is not UTF-8 by evidence."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raw = name.encode("utf-8", "surrogateescape")
        return raw.decode(best_encoding([raw]), "replace")
    return name


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
        todo="do not trust this archive; if you must, unpack it elsewhere and look at it",
    )


def _damaged(archive: Path, reason: str) -> DataError:
    with archive.open("rb") as stream:
        head = stream.read(16)
    size = archive.stat().st_size
    if step := step_for(archive):
        what, todo = step
        return DataError(
            f"{archive} is {what}, which is not read here.",
            expected="a .zip or .tar archive",
            todo=todo,
        )
    page = " (it begins like a web page)" if head.lstrip()[:1] == b"<" else ""
    return DataError(
        f"{archive} ({size:,} bytes) cannot be unpacked: {reason or 'it is damaged'}{page}.",
        expected="a complete .zip or .tar archive",
        todo="fetch it again: half a download looks like this",
    )
