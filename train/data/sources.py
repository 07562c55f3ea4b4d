"""The bytes of an image by its index, read in place from folders, archives and parquet files."""

from __future__ import annotations

import os
import resource
import sys
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from train.data.index import Index, open_index
from train.errors import UserError


class Reader(Protocol):
    """One way to read images. ``place`` is as in ``layouts.Part``: what the two numbers mean is the reader's own."""

    def read(self, container: str, name: str, place: tuple[int, int]) -> bytes: ...


class FolderReader:
    """One file per image; ``place`` is not used."""

    def read(self, container: str, name: str, place: tuple[int, int]) -> bytes:
        with open(f"{container}/{name}", "rb", buffering=0) as file:
            return file.readall()


class ArchiveReader:
    """One positioned read of an open file, at offset and size in bytes; the archives opened last stay open."""

    def __init__(self) -> None:
        self._open: dict[str, FileIO] = {}
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # the other half is for sockets and shared memory
        self._most_open = limit // 2 if limit != resource.RLIM_INFINITY else sys.maxsize

    def read(self, container: str, name: str, place: tuple[int, int]) -> bytes:
        offset, size = place
        file = self._open.get(container)
        if file is None:
            if len(self._open) >= self._most_open:
                self._open.pop(next(iter(self._open))).close()
            file = self._open[container] = FileIO(container)
        content = os.pread(file.fileno(), size, offset)
        if len(content) < size:
            raise OSError(f"it ends before byte {offset + size:,}")
        return content


class ParquetReader:
    """A row group at a time, as the format has it, and a row of it; the last group is kept."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None
        self._images: Any = None

    def read(self, container: str, name: str, place: tuple[int, int]) -> bytes:
        group, row = place
        if self._last != (container, group):
            import pyarrow
            import pyarrow.parquet as parquet

            try:
                with parquet.ParquetFile(container) as file:
                    table = file.read_row_group(group, columns=["image.bytes"])
            except pyarrow.ArrowException as error:
                raise OSError(str(error)) from error
            self._images = table["image"].combine_chunks().field("bytes")
            self._last = container, group
        content = self._images[row].as_py()
        if content is None:
            raise OSError("it has no bytes")
        return content


READERS: dict[str, type[Reader]] = {"folder": FolderReader, "archive": ArchiveReader, "parquet": ParquetReader}


class Source:
    """One split of a data set: its classes, labels and every image's bytes. Each process opens its own files."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def __reduce__(self) -> tuple[Any, ...]:
        return Source, (self.index,)

    @cached_property
    def _reader(self) -> Reader:
        return READERS[self.index.access]()

    @cached_property
    def _containers(self) -> list[str]:
        return [str(self.index.root / name) for name in self.index.containers]

    def __len__(self) -> int:
        return len(self.index.places)

    @property
    def classes(self) -> list[str]:
        return self.index.classes

    def labels(self, indices: NDArray[np.int64] | slice) -> NDArray[np.int64]:
        return self.index.places["label"][indices].astype(np.int64)

    def name(self, index: int) -> str:
        """Where the image is, for a message: its path, or its name and the path of its archive."""
        place = self.index.places[index]
        container = self._containers[place["container"]]
        name = os.fsdecode(self.index.names[index])
        if self.index.access == "folder":
            return os.path.join(container, name)
        where = f"row {place['size']} of row group {place['offset']}"
        return f"{name or where} in {container}"

    def read(self, index: int) -> bytes:
        """The file's content; raises UserError naming it when it cannot be read."""
        offset, size, _, container = self.index.places[index].item()
        name = os.fsdecode(self.index.names[index]) if self.index.access == "folder" else ""
        try:
            return self._reader.read(self._containers[container], name, (offset, size))
        except OSError as error:
            why = " ".join((error.strerror or str(error)).split())  # pyarrow's messages have several lines
            raise UserError(f"cannot read {self.name(index)}: {why}") from error


def open_sources(root: Path, classes_from: Path | None = None) -> tuple[Source, Source]:
    """The training and validation split under ``root``, in any layout; raises UserError as ``open_index`` does."""
    train, val = open_index(root, classes_from)
    return Source(train), Source(val)
