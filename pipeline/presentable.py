"""What may be shown and stored of a text: no secrets of addresses, and nothing that steers a terminal.

Errors, progress lines and the readable part of manifests pass through `presentable`. An address with a secret is
refused where a configuration is read and wherever a `Location` is made, before anything could store it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
USER_IS_NO_SECRET = ("abfs", "abfss", "wasb", "wasbs", "hdfs", "sftp", "ssh")  # container@account, user@host
NO_PORTS = ("s3", "s3a", "gs", "gcs")  # what follows a colon there can only be a secret
MOST_PORT_DIGITS = 5
_ADDRESS = re.compile(r"""\b([a-zA-Z][a-zA-Z0-9+.-]*)://([^\s"'<>]+)""")
_QUERY_SECRET = re.compile(
    r"([?&][\w.-]*(?:signature|credential|secret|passw|token(?!i)|api_?key|access_?key|\bsig\b)[\w.-]*=)[^&#]+",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def presentable(text: str) -> str:
    """The text without user names, passwords and keys of addresses, and without control sequences."""
    return _CONTROL.sub("", _ADDRESS.sub(_without_secret, text))


def presentable_data(data: Any) -> Any:
    """Plain JSON data with all its texts made presentable."""
    if isinstance(data, str):
        return presentable(data)
    if isinstance(data, Mapping):
        return {presentable_data(key): presentable_data(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [presentable_data(item) for item in data]
    return data


def holds_secret(text: str) -> bool:
    """Whether an address in this text carries a user name, password, key or signature."""
    return _ADDRESS.sub(_without_secret, text) != text


def _without_secret(match: re.Match[str]) -> str:
    scheme, rest = match[1].lower(), match[2]
    host, slash, path = rest.partition("/")
    user, colon, port = host.rpartition(":")
    has_port = bool(colon) and port.isdigit() and len(port) <= MOST_PORT_DIGITS and scheme not in NO_PORTS
    if "@" in host and (":" in host.rpartition("@")[0] or scheme not in USER_IS_NO_SECRET):
        rest = f"{HIDDEN}@{rest.rpartition('@')[2] if ':' in host.partition('@')[0] else rest.partition('@')[2]}"
    elif colon and not has_port and "@" not in host and not user.startswith("["):
        # A slash in a password ends the host too early, and a secret key of S3 often has one.
        rest = f"{HIDDEN}@{path.rpartition('@')[2]}" if "@" in path else f"{HIDDEN}{slash}{path}"
    return f"{match[1]}://" + _QUERY_SECRET.sub(rf"\g<1>{HIDDEN}", rest)
