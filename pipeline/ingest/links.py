"""Links as people write them, and as they are opened: what a browser makes of the same characters.

The standard is WHATWG's URL, which browsers keep to. Lists of links hold letters outside ASCII, spaces, `&amp;` from
the source of a page, and links without a scheme; HTTP knows ASCII alone. Fragments go: servers never see them.
"""

from __future__ import annotations

import re
import string
import urllib.parse

SCHEMES = ("http", "https")
PORTS = {"http": "80", "https": "443"}
AMPERSAND = re.compile(r"&(?:amp|#0*38|#x0*26);", re.IGNORECASE)
SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(?![0-9]+(?:[/?#]|$))", re.IGNORECASE)  # what is before a port is no scheme
HOST_FIRST = re.compile(r"(?:[\w-]+(?:\.[\w-]+)+(?::[0-9]+)?|[\w-]+:[0-9]+)(?:[/?#]|$)")  # www.example.org/a.jpg
PLAIN = re.compile(
    r"https?://[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})+/(?:[\w/~+,;=!*()$:@%-]|\.(?!\.?(?:[/?]|$)))*(?:\?[\w/~+,;=!*()$:@%.?-]*)?",
    re.ASCII,
)
EDGE = "".join(map(chr, range(33))) + "\u00a0\u3000\ufeff"  # what is taken off both ends
IN_PATH = "".join(set(string.printable) - set(string.whitespace) - set('"#<>?`{}'))
IN_QUERY = "".join(set(string.printable) - set(string.whitespace) - set("\"#<>'"))


class NoLinkError(ValueError):
    """What stands there cannot be opened; the message says why."""


def opened(written: str) -> str:
    """The link that is opened, in ASCII, with `&amp;` undone. Raises `NoLinkError`.

    What is percent-encoded already stays as it is.
    """
    return in_ascii(_without_entities(written))


def as_it_stands(written: str) -> str | None:
    """The same with its `&amp;`, to be tried if the other one fails; None if there is none in it."""
    return in_ascii(written) if _without_entities(written) != written else None


def split_login(link: str) -> tuple[str, str | None]:
    """A link in ASCII without the name and password before its host, and these."""
    scheme, _, rest = link.partition("://")
    before, slash, path = rest.partition("/")
    login, at, host = before.rpartition("@")
    return f"{scheme}://{host}{slash}{path}", urllib.parse.unquote(login) if at else None


def _without_entities(written: str) -> str:
    while (plain := AMPERSAND.sub("&", written)) != written:  # &amp;amp; was escaped twice
        written = plain
    return written


def in_ascii(written: str) -> str:
    """A link as HTTP has it. Raises `NoLinkError`."""
    if PLAIN.fullmatch(written):
        return written
    text = re.sub(r"[\t\r\n]", "", written.strip(EDGE))
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    scheme, rest = _split_scheme(text)
    rest, _, _ = rest.partition("#")
    rest, mark, query = rest.partition("?")
    host, slash, path = rest.replace("\\", "/").lstrip("/").partition("/")
    userinfo, at, host = host.rpartition("@")
    path = urllib.parse.quote(_without_dots(slash + path), safe=IN_PATH, errors="replace")
    query = urllib.parse.quote(query, safe=IN_QUERY, errors="replace")
    secret = urllib.parse.quote(userinfo, safe=string.ascii_letters + "%:!$&'()*+,;=") + at
    return f"{scheme}://{secret}{_host(host, scheme)}{path}{mark and query and '?'}{query}"


def _split_scheme(text: str) -> tuple[str, str]:
    if not text:
        raise NoLinkError("there is no link in this row")
    if match := SCHEME.match(text):
        scheme = match[1].lower()
        if scheme == "data":
            raise NoLinkError("refused: a data: link holds its picture itself; expected http: or https:")
        if scheme not in SCHEMES:
            raise NoLinkError(f"refused: {scheme}: links are not opened; expected http: or https:")
        return scheme, text[match.end() :]
    if text.startswith(("//", "\\\\")) or HOST_FIRST.match(text):
        return "http", text
    raise NoLinkError("this is not a link; expected one that begins with http:// or https://")


def _without_dots(path: str) -> str:
    """The path with `.` and `..` resolved, and at least a slash."""
    if "/." not in path or path.startswith("//"):
        return path or "/"
    return urllib.parse.urljoin("http://host/", path).removeprefix("http://host")


def _host(text: str, scheme: str) -> str:
    """The host in lower case and IDNA, and its port if it is not the usual one."""
    name, port = text, ""
    if match := re.fullmatch(r"(.*?):([0-9]*)", text, re.DOTALL):
        name, port = match[1], match[2].lstrip("0") or match[2][:1]
    if not name or (port and int(port) > 65535):
        raise NoLinkError("this link names no host" if not name else f"there is no port {port}")
    if not (name.startswith("[") and name.endswith("]")):
        name = _idna(urllib.parse.unquote(name))
    return name.lower() if port in ("", PORTS[scheme]) else f"{name.lower()}:{port}"


def _idna(name: str) -> str:
    """A host name in ASCII: by the rules of today, or those of 2003, which know more signs."""
    if not name.isascii():
        import idna

        try:
            name = idna.encode(name, uts46=True).decode()
        except (idna.IDNAError, UnicodeError):
            try:
                name = name.encode("idna").decode()
            except UnicodeError:
                raise NoLinkError("the host of this link is no name that could exist") from None
    labels = name.removesuffix(".").split(".")
    if re.search(r"[\x00-\x20\"#%/:<>?@\\^`{|}\x7f\[\]]", name) or not all(0 < len(label) < 64 for label in labels):
        raise NoLinkError("the host of this link is no name that could exist")
    return name
