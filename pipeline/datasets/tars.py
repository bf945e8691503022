"""Headers of tar files, read without trusting them."""

from __future__ import annotations

import tarfile

from ..errors import DataError

_MAX_HEADER_BYTES = 1 << 16  # of a long name or extended header, read into memory


class GuardedInfo(tarfile.TarInfo):
    """A member's header; one whose own name would fill the memory is refused."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        long = (
            tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
        )  # fmt: skip
        if self.type in long and self.size > _MAX_HEADER_BYTES:
            raise DataError(
                f"{tar.name!r} has a header of {self.size:,} bytes.",
                expected=f"names and extended headers of at most {_MAX_HEADER_BYTES:,} bytes",
                todo="do not trust this archive",
            )
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]
