"""Opening one link: within a limit of time and of bytes, at public addresses only, and with reasons in words.

urllib waits for a server as long as a byte comes now and then, reads whatever comes, and follows redirects anywhere.
Here a link has so many seconds in all, from the look-up of its host to its last byte, redirects and further tries
included. Each is opened in a thread of its own. When its time is over the thread is left behind and its connections
are shut down, as nothing else ends a look-up, or an answer that comes letter by letter.
"""

from __future__ import annotations

import base64
import http.client
import io
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache, partial
from typing import IO, Any

from pipeline.ingest import links
from pipeline.ingest.addresses import private_address
from pipeline.ingest.link_errors import LinkError, may_pass, not_a_picture, words

BLOCK = 1 << 16
MEGABYTE = 1_000_000
PAUSE_SECONDS = 0.5  # before another try
GZIP = b"\x1f\x8b"  # no picture begins so


@dataclass(frozen=True)
class Limits:
    """What one link may take: seconds and bytes in all, seconds of silence, and how many further tries."""

    seconds: float
    size: int
    silence: float
    retries: int


class Page(io.BytesIO):
    """What a link gave, in full: as much of urllib's answer as img2dataset uses."""

    def __init__(self, data: bytes, headers: http.client.HTTPMessage) -> None:
        super().__init__(data)
        self.headers = headers


class Opener(urllib.request.OpenerDirector):
    """Opens links for `urllib.request.urlopen`, which img2dataset calls.

    `as_they_stand` has a second form of some links, for when the first one fails.
    """

    def __init__(self, limits: Limits, *, public_only: bool, as_they_stand: Mapping[str, str]) -> None:
        super().__init__()
        self.limits, self.public_only, self.as_they_stand = limits, public_only, as_they_stand

    def open(self, fullurl: Any, data: Any = None, timeout: Any = None) -> Any:  # noqa: ARG002 (as urllib has it)
        """The `Page` of a link. Raises `LinkError`, after so many seconds at the latest."""
        result, sockets = Future[Page](), Sockets()
        until = time.monotonic() + self.limits.seconds
        threading.Thread(target=self._settle, args=(result, fullurl, sockets, until), daemon=True).start()
        try:
            return result.result(self.limits.seconds)
        except TimeoutError:
            sockets.shut_down()
            raise LinkError(
                f"timed out: not complete after {self.limits.seconds:g} s (ingest.source.link_seconds)"
            ) from None

    def _settle(self, result: Future[Page], request: urllib.request.Request, sockets: Sockets, until: float) -> None:
        try:
            result.set_result(self._with_second_form(request, sockets, until))
        except Exception as error:  # whatever a server makes urllib raise is the link's, and ends it alone
            result.set_exception(LinkError(words(error, self.limits.silence)))

    def _with_second_form(self, request: urllib.request.Request, sockets: Sockets, until: float) -> Page:
        headers, link = dict(request.header_items()), request.full_url
        try:
            return self._with_retries(link, headers, sockets, until)
        except urllib.error.HTTPError as error:
            second = self.as_they_stand.get(link)
            if second is None:
                raise
            try:
                return self._with_retries(second, headers, sockets, until)
            except Exception:
                raise error from None

    def _with_retries(self, link: str, headers: dict[str, str], sockets: Sockets, until: float) -> Page:
        for left in reversed(range(self.limits.retries + 1)):
            try:
                return self._once(link, headers, sockets)
            except Exception as error:
                pause = _pause(error)
                if not left or not may_pass(error) or time.monotonic() + pause > until:
                    raise
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _once(self, link: str, headers: dict[str, str], sockets: Sockets) -> Page:
        link, login = links.split_login(link)
        request = urllib.request.Request(link, headers=headers)
        if login is not None:  # as browsers do; it goes to no other host that this one redirects to
            secret = base64.b64encode(login.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {secret}")
        director = opener(public_only=self.public_only, sockets=sockets)
        with director.open(request, timeout=self.limits.silence) as answer:
            data = _plain(self._body(answer), self.limits.size)
            if (other := not_a_picture(data)) is not None:
                raise LinkError(other)
            return Page(data, answer.headers)

    def _body(self, answer: http.client.HTTPResponse) -> bytes:
        if (answer.length or 0) > self.limits.size:
            raise _too_large(self.limits.size)
        data = bytearray()
        while block := answer.read1(BLOCK):
            data += block
            if len(data) > self.limits.size:
                raise _too_large(self.limits.size)
        if answer.length:
            raise http.client.IncompleteRead(b"")
        return bytes(data)


class Sockets:
    """The connections of one link, so that somebody else can end them."""

    def __init__(self) -> None:
        self.checked: set[str] = set()  # hosts that were found to be public
        self._sockets: list[socket.socket] = []
        self._is_over = False

    def connect(self, address: tuple[str, int], *options: Any) -> socket.socket:
        """As `socket.create_connection`, also when a name has another address now than when it was looked at."""
        connected = socket.create_connection(address, *options)
        self._sockets.append(connected)
        if self._is_over:
            self.shut_down()
        if address[0] in self.checked:
            try:
                _refuse_private(address[0], connected.getpeername()[0])
            except PermissionError:
                connected.close()
                raise
        return connected

    def shut_down(self) -> None:
        """End all connections, now and later: whoever waits for one goes on, and finds nothing."""
        self._is_over = True
        for connected in self._sockets:
            try:
                socket.socket.shutdown(connected, socket.SHUT_RDWR)
            except OSError:
                continue


class RefusePrivate(urllib.request.BaseHandler):
    """Looks at the host of every request before it is made; urllib sends redirects through here as well."""

    def __init__(self, sockets: Sockets) -> None:
        self.sockets = sockets

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        """Raise `PermissionError` if the host is not public."""
        host = urllib.parse.urlsplit(request.full_url).hostname or ""
        _refuse_private(host, host)
        self.sockets.checked.add(host)
        return request

    https_request = http_request


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to whatever browsers take for a link, and reads nothing of the page that redirects."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()  # urllib would read it to its end, which may never come
        try:
            link, _ = links.split_login(links.in_ascii(newurl))
        except links.NoLinkError as error:
            raise LinkError(f"the server redirects to what cannot be opened: {error}") from None
        return super().redirect_request(req, fp, code, msg, headers, link)


class Http(urllib.request.HTTPHandler):
    """HTTP over connections that are on record."""

    def __init__(self, sockets: Sockets) -> None:
        super().__init__()
        self.sockets = sockets

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_connection, http.client.HTTPConnection, self.sockets), req)


class Https(urllib.request.HTTPSHandler):
    """HTTPS over connections that are on record."""

    def __init__(self, sockets: Sockets) -> None:
        super().__init__()
        self.sockets = sockets

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        make = partial(_connection, http.client.HTTPSConnection, self.sockets)
        return self.do_open(make, req, context=_certificates())


def opener(*, public_only: bool, sockets: Sockets | None = None) -> urllib.request.OpenerDirector:
    """What opens one link: over HTTP and HTTPS only, and at public addresses only if asked for."""
    director, sockets = urllib.request.OpenerDirector(), sockets or Sockets()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        Http(sockets),
        Https(sockets),
        urllib.request.HTTPDefaultErrorHandler(),
        Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        director.add_handler(handler)
    if public_only:
        director.add_handler(RefusePrivate(sockets))
    return director


def _connection(kind: type[http.client.HTTPConnection], sockets: Sockets, *given: Any, **named: Any) -> Any:
    connection = kind(*given, **named)
    connection._create_connection = sockets.connect  # type: ignore[attr-defined]
    return connection


@cache
def _certificates() -> ssl.SSLContext:
    """One for all: reading the certificates of the machine takes some 20 ms."""
    return ssl.create_default_context()


def _refuse_private(host: str, address: str) -> None:
    private = private_address(address)
    if private is not None:
        raise PermissionError(
            f"refused: {host} is at the private address {private}; ingest.source.allow_private_addresses allows it"
        )


def _pause(error: Exception) -> float:
    """Seconds until another try: those that the server asks for, if it does."""
    asked = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    return float(asked) if asked.isascii() and asked.isdigit() else PAUSE_SECONDS


def _plain(data: bytes, most: int) -> bytes:
    """The data, unpacked if a server packed it without being asked."""
    if not data.startswith(GZIP):
        return data
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = unpacking.decompress(data, most + 1)
    except zlib.error:
        return data
    if len(plain) > most:
        raise _too_large(most)
    return plain


def _too_large(most: int) -> LinkError:
    return LinkError(f"more than {most / MEGABYTE:g} MB (ingest.source.link_megabytes)")
