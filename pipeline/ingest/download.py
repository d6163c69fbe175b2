"""A process that runs img2dataset over chunks of links, with two things that it lacks.

It follows any link, also to `file:` and to addresses inside the network it runs in; here every link, and every
redirect on the way, is looked at first (a name that resolves to another address a moment later still gets by).
And this process ends with the pipe to whoever started it, so that nothing is left running.
Run by `urls.py` as `main()`, with the job as JSON in the first argument; its output goes to a log.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import sys
import threading
import types
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

# Other features of img2dataset need these, and loading them takes 7 of its 9 CPU seconds. It knows how to do
# without the absent; the hollow it imports and never touches here (and imghdr is gone from Python 3.13).
ABSENT = ("ray", "torch")
HOLLOW = ("albumentations", "imghdr", "wandb")


class RefusePrivate(urllib.request.BaseHandler):
    """Looks at the host of every request before it is made; urllib sends redirects through here as well."""

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        """Raise `PermissionError` if the host is not public."""
        host = urllib.parse.urlsplit(request.full_url).hostname or ""
        private = private_address(host)
        if private is not None:
            raise PermissionError(f"refused: {host} is at the private address {private}")
        return request

    https_request = http_request


def private_address(host: str) -> str | None:
    """The first address of a host that is not public (loopback, private, link-local, reserved), if any.

    A name that does not resolve has none: the request will say so itself.
    """
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return None
    for *_, (address, *_rest) in found:
        ip: Any = ipaddress.ip_address(str(address).split("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if not ip.is_global or ip.is_multicast:
            return str(address)
    return None


def opener(*, public_only: bool) -> urllib.request.OpenerDirector:
    """What opens links: over HTTP and HTTPS only, and to public addresses only if asked for."""
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        director.add_handler(handler)
    if public_only:
        director.add_handler(RefusePrivate())
    return director


def main() -> None:
    """Download the chunks of one job, in order."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(sys.argv[1])
    urllib.request.install_opener(opener(public_only=job["public_only"]))
    downloader = _downloader(job)

    import pyarrow as pa
    import pyarrow.parquet as pq

    links = pq.read_table(Path(job["folder"]) / "links.parquet")
    Path(job["ready"]).touch()
    for chunk in job["chunks"]:
        path = Path(job["folder"]) / f"links-{chunk}.arrow"
        rows = links.slice(chunk * job["chunk"], job["chunk"])
        with pa.ipc.new_file(path, rows.schema) as writer:
            writer.write_table(rows)
        downloader.download_shard((chunk, str(path)))


def _downloader(job: dict[str, Any]) -> Any:
    """img2dataset's downloader, keeping the bytes as they come: they are decoded and resized by us."""
    sys.modules.update(dict.fromkeys(ABSENT))  # type: ignore[arg-type]  # how Python says "not installed"
    sys.modules.update({name: types.ModuleType(name) for name in HOLLOW})
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    return Downloader(
        sample_writer_class=WebDatasetSampleWriter,
        resizer=Resizer(image_size=0, resize_mode="no", resize_only_if_bigger=False, disable_all_reencoding=True),
        thread_count=job["threads"],
        save_caption=False,
        extract_exif=False,
        output_folder=job["folder"],
        column_list=["url"],
        timeout=job["timeout"],
        number_sample_per_shard=job["chunk"],
        oom_shard_count=5,
        compute_hash=None,
        verify_hash_type=None,
        encode_format="jpg",
        retries=job["retries"],
        user_agent_token=None,
        disallowed_header_directives=["noai", "noimageai", "noindex", "noimageindex"],
    )


def _end_with_parent() -> None:
    """Block until the pipe to the parent closes, then end this process."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
