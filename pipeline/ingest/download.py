"""The process that runs img2dataset, with two things that it lacks.

It follows any link, also to `file:` and to addresses inside the network it runs in; here every link, and every
redirect on the way, is looked at first. And it outlives whoever started it; here it ends with the pipe to them.
Run by `urls.py` as `main()`, with the job as JSON in the first argument; its output goes to a log.
"""

from __future__ import annotations

import importlib
import ipaddress
import json
import os
import signal
import socket
import sys
import threading
import urllib.parse
import urllib.request
from typing import Any

from img2dataset.downloader import Downloader


class _RefusePrivate(urllib.request.BaseHandler):
    """Looks at the host of every request before it is made; urllib sends redirects through here as well."""

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
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


class PublicDownloader(Downloader):
    """img2dataset's downloader, over HTTP(S) only and to public addresses only."""

    public_only = True

    def __call__(self, row: Any) -> Any:
        """Download one shard, in one of img2dataset's processes."""
        opener = urllib.request.OpenerDirector()
        handlers: list[urllib.request.BaseHandler] = [
            urllib.request.ProxyHandler(),
            urllib.request.UnknownHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
        ]
        for handler in [*handlers, *([_RefusePrivate()] if self.public_only else [])]:
            opener.add_handler(handler)
        urllib.request.install_opener(opener)
        return super().__call__(row)


class AnyDownloader(PublicDownloader):
    """The same, to any address."""

    public_only = False


def _end_with_parent() -> None:
    """Block until the pipe to the parent closes, then end this process and all that it started."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run one job."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(sys.argv[1])
    module = importlib.import_module("img2dataset.main")
    module.Downloader = AnyDownloader if job.pop("allow_private_addresses") else PublicDownloader  # type: ignore[attr-defined]
    module.download(
        **job,
        input_format="parquet",
        output_format="webdataset",
        disable_all_reencoding=True,
        extract_exif=False,
        compute_hash=None,
        enable_wandb=False,
    )
