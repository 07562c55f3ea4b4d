"""Standard output and error that may lose their reader: a run is worth more than its lines."""

import errno
import io
import os
import sys
from typing import Any, TextIO


def outlive_readers() -> None:
    """Drop what this process prints from the moment that it cannot be written, instead of failing.

    Ctrl-C ends the ``tee`` behind a pipe as well, and a closed connection takes the terminal away: both while the run
    saves its last step. The disk of a log may be full, and the encoding of a terminal lack a letter.
    """
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)


def _lasting(stream: TextIO | None) -> TextIO:
    if stream is None:
        # it was closed at the start
        return open(os.devnull, "w", encoding="utf-8")
    assert isinstance(stream, io.TextIOWrapper)
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(stream.fileno(), "wb", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Lasting(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EDQUOT):
                raise
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())
            return memoryview(data).nbytes
