"""A process that runs img2dataset over its share of the links, and notes what became of each as soon as that is known.

img2dataset opens links by urllib, which is told here how (`download.py`), and hands over every picture with its row;
so no link waits for another. This process ends with the pipe to whoever started it, so that nothing is left running.
Run by `downloads.py` as `main()`, with the job as JSON in the first argument; its output goes to a log.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import types
import urllib.request
from pathlib import Path
from typing import Any

from pipeline.ingest.download import Limits, Opener

# Other features of img2dataset need these, and loading them takes 7 of its 9 CPU seconds. It knows how to do
# without the absent; the hollow it imports and never touches here (and imghdr is gone from Python 3.13).
ABSENT = ("ray", "torch")
HOLLOW = ("albumentations", "imghdr", "wandb")
FILE_BYTES = 1 << 28  # of pictures, after which another file begins, so that those that were used can go


class Notes:
    """img2dataset's sample writer: pictures go into a file one after another, and a line of JSON about each beside it.

    A line is [position, file, offset, size] or [position, reason].
    """

    def __init__(self, shard_id: int, output_folder: str, *_: Any) -> None:
        self.folder, self.share, self._number = Path(output_folder), shard_id, 0
        self._lines = open(notes_file(self.folder, shard_id), "a", buffering=1)  # noqa: SIM115 (until `close`)
        self._open()

    def write(self, image: bytes | None, _key: str, _caption: str | None, meta: dict[str, Any]) -> None:
        """Note one link. The picture is in its file before the line tells of it."""
        try:
            self._write(image, meta)
        except OSError as error:  # img2dataset would print it and lose the link
            print(f"{self.folder}: {error.strerror}", flush=True)
            os._exit(1)

    def _write(self, image: bytes | None, meta: dict[str, Any]) -> None:
        if image is None:
            note = [meta["position"], meta["error_message"]]
        else:
            if self._pictures.tell() > FILE_BYTES:
                self.close_pictures()
                self._open()
            note = [meta["position"], self._pictures.name, self._pictures.tell(), len(image)]
            self._pictures.write(image)
            self._pictures.flush()
        self._lines.write(json.dumps(note) + "\n")

    def _open(self) -> None:
        self._pictures = open(self.folder / f"pictures-{self.share}-{self._number}", "wb")  # noqa: SIM115
        self._number += 1

    def close_pictures(self) -> None:
        """End one file of pictures."""
        self._pictures.close()

    def close(self) -> None:
        """As img2dataset asks for."""
        self.close_pictures()
        self._lines.close()


def notes_file(folder: Path, share: int) -> Path:
    """Where a share's lines are."""
    return folder / f"notes-{share}.jsonl"


def links_file(folder: Path, share: int) -> Path:
    """Where a share's links are: columns url, position and second, another form of the link."""
    return folder / f"links-{share}.arrow"


def main() -> None:
    """Download one share of the links."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(sys.argv[1])
    folder, share = Path(job["folder"]), job["share"]
    second = _second_forms(folder, share)
    urllib.request.install_opener(
        Opener(Limits(**job["limits"]), public_only=job["public_only"], as_they_stand=second)
    )
    _downloader(job).download_shard((share, str(links_file(folder, share))))


def _second_forms(folder: Path, share: int) -> dict[str, str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    with pa.ipc.open_file(str(links_file(folder, share))) as file:
        links = file.read_all()
    links = links.filter(pc.is_valid(links["second"]))
    return dict(zip(links["url"].to_pylist(), links["second"].to_pylist(), strict=True))


def _downloader(job: dict[str, Any]) -> Any:
    """img2dataset's downloader, keeping the bytes as they come: they are decoded and resized by us."""
    sys.modules.update(dict.fromkeys(ABSENT))  # type: ignore[arg-type]  # how Python says "not installed"
    sys.modules.update({name: types.ModuleType(name) for name in HOLLOW})
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer

    return Downloader(
        sample_writer_class=Notes,
        resizer=Resizer(image_size=0, resize_mode="no", resize_only_if_bigger=False, disable_all_reencoding=True),
        thread_count=job["threads"],
        save_caption=False,
        extract_exif=False,
        output_folder=job["folder"],
        column_list=["url", "position"],
        timeout=job["limits"]["silence"],
        number_sample_per_shard=2,  # decides nothing but the digits of keys, which are not used
        oom_shard_count=5,
        compute_hash=None,
        verify_hash_type=None,
        encode_format="jpg",
        retries=0,  # of ours: those within the time of the link
        user_agent_token=None,
        disallowed_header_directives=["noai", "noimageai", "noindex", "noimageindex"],
    )


def _end_with_parent() -> None:
    """Block until the pipe to the parent closes, then end this process."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
