"""Faults that come from outside, as one sentence that names the place and says what to do.

A full disk, a store that does not answer, a folder that may not be written: no code of ours is wrong, and no traceback
helps. `outside_faults` turns them into `StoreError` wherever they arise: in this process, in a worker of Ray (whose
errors wrap the real one), or inside DuckDB, which has errors of its own.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import HolismError, StoreError

AGAIN = "then run the same command again: it goes on where it stopped"
SENTENCES = {
    errno.ENOSPC: f"no space is left for {{place}}; make room there, {AGAIN}",
    errno.EDQUOT: f"the disk quota is used up for {{place}}; make room there, {AGAIN}",
    errno.EFBIG: f"{{place}} grew larger than its file system or `ulimit -f` allows; raise the limit, {AGAIN}",
    errno.EROFS: "{place} is on a file system that can only be read; use another place, or mount it for writing",
    errno.EACCES: "{place} may not be used by this user (permission denied); change that, or use another place",
    errno.EPERM: "{place} may not be used by this user (not permitted); change that, or use another place",
    errno.ENAMETOOLONG: "the name {place} is longer than its file system allows; choose a shorter one",
    errno.ENOTDIR: "{place} lies below something that is a file and no folder; choose another place",
    errno.EEXIST: "a part of {place} is a file where a folder is needed; remove it, or choose another place",
    errno.EISDIR: "{place} is a folder, and a file was expected; name the file",
    errno.ENOENT: f"{{place}} is not there, or not any more; put it back, {AGAIN}",
    errno.EMFILE: f"too many files are open at once (at {{place}}); raise the limit with `ulimit -n 65536`, {AGAIN}",
    errno.ENFILE: f"too many files are open on this machine (at {{place}}); end other programs, {AGAIN}",
    errno.EIO: f"the device of {{place}} failed (input/output error); check it, {AGAIN}",
    errno.ESTALE: f"the file system of {{place}} went away (stale file handle); mount it again, {AGAIN}",
    errno.ENODEV: f"the file system of {{place}} went away (no such device); mount it again, {AGAIN}",
    errno.ENOTCONN: f"the file system of {{place}} went away (not connected); mount it again, {AGAIN}",
    errno.ETIMEDOUT: f"{{place}} did not answer in time; check its server, {AGAIN}",
}
# Errors of other libraries (DuckDB, pyarrow, torch) only tell of these by the system's words for them.
TOLD_IN_WORDS = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)}
STORE_CLIENTS = (
    "botocore.",
    "aiobotocore.",
    "aiohttp.",
    "s3fs.",
    "gcsfs.",
    "google.auth.",
    "google.api_core.",
    "azure.",
)
OUT_OF_ROOM = "OutOfMemoryException"  # DuckDB's, also where the disk has no room for what does not fit into memory
_QUOTED = re.compile(r"""["'](/[^"'\\\n]+)\\?["']""")


@contextmanager
def outside_faults() -> Iterator[None]:
    """Raise faults from outside as `StoreError`; all other errors are left as they are."""
    try:
        yield
    except Exception as error:
        fault = None if isinstance(error, HolismError) else explained(error)
        if fault is None:
            raise
        raise fault from error


def explained(error: BaseException) -> HolismError | None:
    """The fault from outside that an error, or one of its causes, tells of; None if it is of another kind."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if isinstance(cause, HolismError):
            return cause
        if (sentence := _sentence(cause)) is not None:
            return StoreError(sentence)
        seen.append(cause)
        wrapped = getattr(cause, "cause", None)  # Ray's word for it
        cause = wrapped if isinstance(wrapped, BaseException) else cause.__cause__
    return None


def of_file(error: OSError, place: object) -> StoreError:
    """What went wrong with a file or folder of this machine."""
    sentence = SENTENCES.get(error.errno or 0)
    if sentence is None:
        return StoreError(f"{place} cannot be used: {error.strerror or error}")
    return StoreError(sentence.format(place=place))


def of_store(error: Exception, place: object) -> StoreError:
    """What went wrong with an object store, or with any file system that is not this machine's."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return StoreError(
            f"{place} cannot be used: there is no such bucket or folder ({reason}); make it, or correct the name"
        )
    if "Credentials" in type(error).__name__ or "DefaultCredentials" in reason:
        return StoreError(
            f"{place} cannot be used: no credentials were found ({reason}); set them in the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS) or in a credentials file"
        )
    if isinstance(error, PermissionError):
        return StoreError(
            f"{place} may not be used with these credentials ({reason}); change them, or its permissions"
        )
    return StoreError(
        f"the store of {place} does not answer as it should ({reason}); check the network and the address, {AGAIN}"
    )


def _sentence(error: BaseException) -> str | None:
    text = " ".join(str(error).split())
    if isinstance(error, Exception) and f"{type(error).__module__}.".startswith(STORE_CLIENTS):
        return str(of_store(error, "this run"))
    if type(error).__name__ == OUT_OF_ROOM:
        return (
            f"there is not enough memory, nor room for temporary files in {tempfile.gettempdir()} ({text[:200]}); "
            f"make room there or set TMPDIR to a folder with more, {AGAIN}"
        )
    number = error.errno if isinstance(error, OSError) else None
    if number not in SENTENCES:
        number = next((code for words, code in TOLD_IN_WORDS.items() if words in text), None)
    named = getattr(error, "filename", None) or next(iter(_QUOTED.findall(text)), None)
    if number is None or (named is None and number not in TOLD_IN_WORDS.values()):
        return None  # it may as well be a mistake of ours
    nameless = f"the files of this run (temporary ones go to {tempfile.gettempdir()})"
    place = os.fsdecode(named) if isinstance(named, (str, bytes)) else nameless
    return SENTENCES[number].format(place=place)
