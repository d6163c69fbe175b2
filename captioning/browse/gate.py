"""Who may ask the browser for captions, and what every answer says to the reader's own browser.

A page of somebody else's can make a name of its own lead to this machine (DNS rebinding) and would then read captions
as its own. So only names that are known are answered. Beyond loopback everybody on the network can ask, so there
a token is asked for, too: part of the address that is printed, and a cookie after the first visit.
"""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^\s:\[\]]+))(?::\d+)?")


@dataclass(frozen=True)
class Rules:
    """The names that are answered beside those of loopback, and the token that is asked for."""

    names: frozenset[str] = frozenset()
    any_address: bool = False  # every address of this machine: a number is no name that somebody could redirect
    token: str | None = None
    cookie: str = "holism-browse"  # cookies are shared by all ports of a host, so its name has the port

    @classmethod
    def of(cls, host: str, address: str, port: int, allowed: Iterable[str] = ()) -> Rules:
        """The rules of a browser that was asked to listen on `host` and does so on `address` and `port`."""
        bound = ip_address(address)
        own = {host, address} | ({socket.gethostname()} if bound.is_unspecified else set())
        names = frozenset(name.lower() for name in (*own, *allowed))
        token = None if bound.is_loopback else secrets.token_urlsafe(24)
        return cls(names, bound.is_unspecified, token, f"holism-browse-{port}")

    def know(self, header: str) -> bool:
        """Whether a Host header names this browser."""
        match = HOST.fullmatch(header.lower())
        if match is None:
            return False
        name = match["v6"] or match["name"]
        number = _number(name)
        if number is not None and (number.is_loopback or self.any_address):
            return True
        return name == "localhost" or name in self.names

    def accept(self, token: str | None) -> bool:
        """Whether this is the token."""
        return self.token is not None and secrets.compare_digest((token or "").encode(), self.token.encode())


class Gate:
    """Refuses what the rules do not allow, and puts the security headers on every answer, refusals too."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, rules = Request(scope), self.rules
        brought = rules.accept(request.query_params.get("token"))

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)  # a page that loads nothing may bring a policy of its own
                if brought and known:
                    headers.append("Set-Cookie", f"{rules.cookie}={rules.token}; Path=/; HttpOnly; SameSite=Strict")
            await send(message)

        host = request.headers.get("host", "")
        known = len(request.headers.getlist("host")) == 1 and rules.know(host)
        app = self.app
        if not known:
            app = PlainTextResponse(_wrong_name(host), 403)
        elif rules.token is not None and not brought and not rules.accept(request.cookies.get(rules.cookie)):
            app = PlainTextResponse(
                "A token is asked for: open the address that holism browse printed, it ends in /?token=...\n", 403
            )
        await app(scope, receive, answer)


def _wrong_name(host: str) -> str:
    """Why a name is refused, and what to do for one that is right."""
    if not host:
        return "The request names no host, so it is refused.\n"
    return (
        f"This caption browser is not known as {host[:200]!r}, so the request is refused. Use the address that "
        "holism browse printed, or start it with --allow-host NAME.\n"
    )


def _number(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None
