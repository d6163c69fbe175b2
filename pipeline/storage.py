"""Files on any fsspec location, written in one atomic step.

`Location` is a small picklable path: local folders, `s3://`, `gs://` and, in tests, `memory://` look the same.
A reader never sees half a file: locally the data goes to a hidden neighbour and is renamed, on an object
store it is one PUT. What cannot be written, and a store that does not answer, is a `StoreError` that names the place;
a file that is not there, or may not be read, is the `OSError` that callers expect.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

import fsspec

from pipeline import faults
from pipeline.errors import ConfigError, HolismError
from pipeline.presentable import holds_secret

if TYPE_CHECKING:
    import pyarrow as pa

TEMPORARY = ".part-"  # prefix of files being written; never matched by a glob


PACKAGES = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs")}  # and extras
BUCKETS = tuple(PACKAGES)  # schemes whose first part is a bucket, which nobody but its owner can make
S3_ATTEMPTS = 7  # of one request, over some 30 s; AWS_MAX_ATTEMPTS and AWS_RETRY_MODE win
_MAGIC = re.compile(r"[*?[]")  # what makes a pattern of a path
OF_FILES = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)


def filesystem(protocol: str) -> Any:
    """The fsspec file system of a scheme: one for each process, as clients of stores do not survive a fork.

    Listings are never cached, since others write too; requests that fail for a moment are tried again. Raises
    `ConfigError` if the scheme is unknown, or if the package that serves it is not installed.
    """
    return _filesystem(protocol, os.getpid())


@lru_cache(maxsize=64)
def _filesystem(protocol: str, _process: int) -> Any:
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in ("s3", "s3a") and not {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & set(os.environ):
        options["config_kwargs"] = {"retries": {"total_max_attempts": S3_ATTEMPTS}}
    try:
        return fsspec.filesystem(protocol, **options)
    except ImportError as error:
        package, extra = PACKAGES.get(protocol, ("", ""))
        how = f"install it, the extra {extra}: uv pip install {package}" if package else f"install it ({error})"
        raise ConfigError(f"addresses that begin with {protocol}:// need a package that is missing; {how}") from error
    except ValueError as error:
        raise ConfigError(
            f"addresses that begin with {protocol}:// are of no known kind; expected a path of this machine, s3://, "
            "gs://, or another scheme that fsspec knows"
        ) from error


@dataclass(frozen=True, order=True)
class Location:
    """A file or folder, by URI. Local paths are made absolute."""

    uri: str

    @classmethod
    def of(cls, path: str | os.PathLike[str] | Location) -> Location:
        """Make a location of a path or URI."""
        if isinstance(path, Location):
            return path
        text = os.fspath(path)
        if not text.strip():  # which would be the folder that the command is given in
            raise ConfigError("a path of the configuration is empty; expected a file, a folder or an address")
        if holds_secret(text):
            raise ConfigError(
                f"the address {text} holds a user name, password or key, and addresses are stored with every result; "
                "leave it out, and put it into the environment or a credentials file (docs/architecture.md)"
            )
        if "://" not in text:
            return cls(os.path.abspath(os.path.expanduser(text)))
        if text.startswith("file://"):
            return cls(os.path.abspath(text.removeprefix("file://")))
        return cls(text.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether this is a path of this machine's file system."""
        return "://" not in self.uri

    @property
    def protocol(self) -> str:
        """The scheme of its file system."""
        return "file" if self.is_local else self.uri.split("://", 1)[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.uri)

    @property
    def stem(self) -> str:
        """The name up to its first dot."""
        return self.name.split(".", 1)[0]

    @property
    def parent(self) -> Location:
        """The folder this lies in."""
        return Location(posixpath.dirname(self.uri))

    @property
    def _fs(self) -> Any:
        return filesystem(self.protocol)

    @property
    def _path(self) -> str:
        return self.uri if self.is_local else str(self._fs._strip_protocol(self.uri))

    def __truediv__(self, name: str) -> Location:
        return Location(f"{self.uri}/{name}")

    def __str__(self) -> str:
        return self.uri

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """A store that does not answer is a `StoreError`; what is said of a file stays an `OSError`."""
        try:
            yield
        except (*OF_FILES, HolismError):
            raise
        except PermissionError as error:
            raise PermissionError(error.errno or errno.EACCES, error.strerror or str(error), self.uri) from error
        except Exception as error:  # every store has errors of its own
            if self.is_local:
                raise
            raise faults.of_store(error, self.uri) from error

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Whatever keeps a change from being made is a `StoreError` that names the place."""
        try:
            yield
        except HolismError:
            raise
        except Exception as error:
            if not self.is_local:
                raise faults.of_store(error, self.uri) from error
            if not isinstance(error, OSError):
                raise
            raise faults.of_file(error, self.uri) from error

    def require_bucket(self) -> None:
        """Raises `StoreError` if the bucket of an address is not there, or its store does not answer."""
        if self.protocol not in BUCKETS:
            self.exists()
            return
        with self._changing(), suppress(PermissionError):  # who may use a folder need not see the bucket
            self._fs.info(self._path.split("/", 1)[0])

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        with self._asking():
            return bool(self._fs.exists(self._path))

    def is_dir(self) -> bool:
        """Whether there is a folder."""
        with self._asking():
            return bool(self._fs.isdir(self._path))

    def size(self) -> int:
        """Size of the file in bytes."""
        with self._asking():
            return int(self._fs.size(self._path))

    def info(self) -> dict[str, Any]:
        """What the file system knows: `size`, `type`, and a time of change where it has one."""
        with self._asking():
            return dict(self._fs.info(self._path))

    def read(self) -> bytes:
        """The whole file."""
        with self._asking():
            return bytes(self._fs.cat_file(self._path))

    def read_range(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`."""
        with self._asking():
            return bytes(self._fs.cat_file(self._path, start=offset, end=offset + size))

    def open(self, mode: str = "rb") -> IO[Any]:
        """Open for reading. Writing goes through `write`, which is atomic."""
        if "r" not in mode:
            raise ValueError(f"open({mode!r}): files are written by Location.write")
        with self._asking():
            handle: IO[Any] = self._fs.open(self._path, mode)
        return handle

    def open_arrow(self) -> pa.NativeFile:
        """Open for a reader of pyarrow.

        Its threads read by themselves: those that call back into a handle of Python's can end the process when the
        interpreter exits.
        """
        import pyarrow as pa

        return pa.OSFile(self.uri) if self.is_local else pa.BufferReader(self.read())

    def write(self, data: bytes) -> None:
        """Write the whole file in one atomic step, creating folders as needed."""
        with self._changing():
            if self.is_local:
                _write_local(self.uri, data)
            else:
                self._fs.pipe_file(self._path, data)

    def create(self, data: bytes) -> bool:
        """Write a small file that is not there; False if it is.

        One atomic step on S3 and Google's store. Stores without conditional writes just write: read it back.
        """
        with self._changing():
            try:
                self._fs.pipe_file(self._path, data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
                self._fs.pipe_file(self._path, data)
        return True

    def append(self, text: str) -> None:
        """Add to a log on this machine's file system."""
        with self._changing(), open(self.uri, "a", encoding="utf8") as handle:
            handle.write(text)

    def remove(self, *, recursive: bool = False) -> None:
        """Delete the file (or the folder, if `recursive`); nothing happens if there is none."""
        if self.exists():
            with self._changing(), suppress(FileNotFoundError):
                self._fs.rm(self._path, recursive=recursive)

    def make_folder(self) -> None:
        """Create the folder and its parents."""
        with self._changing():
            self._fs.makedirs(self._path, exist_ok=True)

    def files(self, suffix: str = "", *, recursive: bool = False) -> Iterator[tuple[Location, int]]:
        """Yield (file, size in bytes) below this folder whose name ends in `suffix`, sorted by path."""
        for location, info in self.entries(recursive=recursive):
            if location.name.endswith(suffix) and not location.name.startswith("."):
                yield location, int(info.get("size") or 0)

    def entries(self, *, recursive: bool = False) -> Iterator[tuple[Location, dict[str, Any]]]:
        """Yield (file, what `info` says of it) below this folder, hidden files too, sorted by path."""
        if not self.is_dir():
            return
        with self._asking():
            infos = self._fs.find(self._path, maxdepth=None if recursive else 1, detail=True)
        for path in sorted(infos):
            yield self._at(path), infos[path]

    def glob(self) -> list[tuple[Location, bool]]:
        """The files and folders that match this address, read as a pattern, sorted; with whether it is a folder.

        Folders at its start that are there are no pattern, whatever their names.
        """
        literal = self
        while _MAGIC.search(literal.uri) and not literal.exists():
            literal = literal.parent
        with self._asking():
            start = literal._path
            pattern = _MAGIC.sub(r"[\g<0>]", start) + self._path.removeprefix(start)
            matches = self._fs.glob(pattern, detail=True)
            return [(self._at(path), matches[path]["type"] == "directory") for path in sorted(matches)]

    def _at(self, path: str) -> Location:
        return Location(path) if self.is_local else Location(f"{self.protocol}://{path.lstrip('/')}")


def _write_local(path: str, data: bytes) -> None:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f"{TEMPORARY}{name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
