"""The one exception for everything a user can fix, printed as one line with exit code 2."""

from __future__ import annotations

import errno
import os


class UserError(Exception):
    """What happened, where, what was expected, and what to do next.

    Never put document text in here: an id, a length or a hash says where to look.

    >>> print(UserError("no documents", where="texts/", expected="*.jsonl.zst", todo="check the folder"))
    texts/: no documents; expected *.jsonl.zst; check the folder
    """

    def __init__(
        self, what: str, *, where: object = None, expected: str | None = None, todo: str | None = None
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.expected = expected
        self.todo = todo
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.expected:
            line += f"; expected {self.expected}"
        if self.todo:
            line += f"; {self.todo}"
        return " ".join(line.split())


class UnsuitedError(UserError):
    """What was given does not have the form that is needed: nothing to mend here, only something else to give."""


def from_os_error(error: BaseException) -> UserError | None:
    """The `UserError` behind a full disk or a refused permission, or None when it is something else.

    Libraries written in Rust or C report a full disk in their own exception types, so the message is read too.
    """
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    where = error.filename if isinstance(error, OSError) else None
    if number == errno.EFBIG:
        return UserError(
            "a file may not grow so large here",
            where=where,
            expected="no limit on file sizes (ulimit -f, or the file system's)",
            todo="raise it or choose another --out, and run the same command again",
        )
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in text:
        return UserError(
            "the disk is full",
            where=where,
            expected="free space for the product",
            todo="free some space and run the same command again: it continues where it stopped",
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(
            "no permission to write or read here",
            where=where,
            expected="a folder you may write to",
            todo="choose another --out or change the permissions",
        )
    if number in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG) and where is not None:
        return UserError(
            f"cannot be used ({os.strerror(number).lower()})",
            where=where,
            expected="a file or folder of the right kind",
            todo="check the path",
        )
    return None
