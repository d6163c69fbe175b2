"""Why a link gave no picture, in words. Reasons do not name the link, so that equal ones can be counted."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error

STATUS = {
    400: "the server does not understand the link",
    401: "the server asks for a login",
    402: "the server asks for a payment",
    403: "the server refuses access",
    404: "the server has no such picture",
    406: "the server has the picture in no form that is accepted",
    408: "the server did not wait for the request",
    410: "the picture is gone for good",
    429: "the server got too many requests; lower ingest.source.threads, then run ingest with --retry-failed",
    451: "the server may not show the picture, for legal reasons",
}
SERVER_FAILED = "the server has a fault; run ingest with --retry-failed later"
PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
PASSING = (TimeoutError, ConnectionResetError, BrokenPipeError, http.client.IncompleteRead)
OPT_OUT = "the server does not allow this use of the picture (X-Robots-Tag)"

PAGES = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<meta")
OTHER_FILES = ((b"%pdf", "a PDF document"), (b'{"', "a JSON document"), (b"\x1a\x45\xdf\xa3", "a video"))
VIDEO = (b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"qt  ", b"m4v ", b"3gp4", b"3gp5", b"dash")


class LinkError(Exception):
    """A link that gives no picture; the message is the reason."""


def words(error: BaseException, silence: float) -> str:
    """The reason for an error that came up while a link was opened, with `silence` seconds of patience."""
    if isinstance(error, urllib.error.HTTPError):
        return _of_status(error)
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, LinkError | PermissionError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"timed out: the server was silent for {silence:g} s (ingest.source.timeout)"
    if isinstance(error, socket.gaierror):
        return _of_name(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no secure connection can be made: {error.reason or error}"
    return _of_connection(error)


def may_pass(error: BaseException) -> bool:
    """Whether another try may end otherwise."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in PASSING_STATUS
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    return isinstance(error, PASSING) or (isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN)


def not_a_picture(data: bytes) -> str | None:
    """What a server sent instead of a picture, if that is plain to see: mostly a page that says that it is gone."""
    start = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not data:
        return "the server sent nothing"
    sent = next((kind for sign, kind in OTHER_FILES if start.startswith(sign)), None)
    if start.startswith(PAGES) or (start.startswith(b"<!--") and b"<html" in start):
        sent = "a web page (HTML)"
    elif start.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--")):
        sent = "a drawing (SVG)" if b"<svg" in start else "an XML document"
    elif data[4:8] == b"ftyp" and data[8:12].lower() in VIDEO:
        sent = "a video"
    return f"not an image: the server sent {sent} instead" if sent else None


def _of_status(error: urllib.error.HTTPError) -> str:
    code = error.code
    if 300 <= code < 400:
        circle = "infinite loop" in str(error.msg)
        return f"HTTP {code}: the server redirects " + ("in a circle" if circle else "to what is no web link")
    standard = http.client.responses.get(code)
    said = STATUS.get(code) or (SERVER_FAILED if code >= 500 else "the server refuses the request")
    return f"HTTP {code} ({standard}): {said}" if standard else f"HTTP {code}: {said}"


def _of_name(error: socket.gaierror) -> str:
    if error.errno == socket.EAI_AGAIN:
        return (
            "the name server does not answer, so the host's address is not known; run ingest with --retry-failed later"
        )
    return "there is no host of this name (DNS)"


def _of_connection(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "the host refuses connections"
    if isinstance(error, http.client.IncompleteRead):
        return "the server ended its answer too early"
    if isinstance(error, ConnectionError):  # also http.client's RemoteDisconnected
        return "the server closed the connection without an answer"
    if isinstance(error, http.client.InvalidURL | UnicodeError | ValueError):
        return f"this link cannot be opened: {_line(error)}"
    if isinstance(error, http.client.HTTPException):
        return f"what the host answers is not HTTP ({type(error).__name__}: {_line(error)[:80]})"
    if isinstance(error, OSError):
        return f"the host cannot be reached: {error.strerror or _line(error)}"
    return f"{type(error).__name__}: {_line(error)}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
