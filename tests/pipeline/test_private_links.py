"""Links that lead to this machine or its network are refused, by whichever way they lead there."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.ingest import download
from tests.pipeline.images import config, ingest, picture
from tests.pipeline.sites import Site, links, url_list


@pytest.mark.slow
def test_private_addresses_are_refused_also_behind_names(tmp_path: Path, site: Site) -> None:
    site.pages["/a.jpg"] = picture(0)
    port = site.server.server_port
    given = [site.url("/a.jpg"), f"http://localhost:{port}/a.jpg", f"http://[::ffff:127.0.0.1]:{port}/a.jpg"]
    section = config(links(url_list(tmp_path / "l.parquet", given), allow_private_addresses=False))
    with pytest.raises(InputError, match=r"no link of .*refused: .* is at the private address .*run again"):
        ingest(tmp_path / "ws", section)
    assert not site.asked


def test_redirects_to_private_addresses_are_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.redirects["/out.jpg"] = f"http://localhost:{site.server.server_port}/secret"
    site.pages["/secret"] = b"secret"
    real = download.private_address
    monkeypatch.setattr(download, "private_address", lambda host: None if host == "127.0.0.1" else real(host))
    with pytest.raises(PermissionError, match=r"localhost is at the private .*allow_private_addresses"):
        download.opener(public_only=True).open(site.url("/out.jpg"), timeout=5)
    assert site.asked == {"/out.jpg": 1}
    assert download.opener(public_only=False).open(site.url("/out.jpg"), timeout=5).read() == b"secret"


def test_a_name_that_moves_after_it_was_looked_at_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/secret"] = b"secret"
    real = download.private_address
    monkeypatch.setattr(download, "private_address", lambda host: None if host == "localhost" else real(host))
    with pytest.raises(urllib.error.URLError, match="refused: localhost is at the private address"):
        download.opener(public_only=True).open(f"http://localhost:{site.server.server_port}/secret", timeout=5)
    assert not site.asked


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("169.254.169.254", True),
        ("::1", True),
        ("fe80::1", True),
        ("::ffff:192.168.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("2130706433", True),  # 127.0.0.1 as one number
        ("64:ff9b::7f00:1", True),  # NAT64 of 127.0.0.1
        ("64:ff9b::a00:1", True),
        ("64:ff9b:1::808:808", True),  # NAT64 of a site
        ("2002:7f00:1::1", True),  # 6to4 of 127.0.0.1
        ("2002:c0a8:1:2::3", True),
        ("2001:0:7f00:1::", True),  # Teredo
        ("::10.0.0.1", True),  # compatible
        ("::ffff:0:10.0.0.1", True),  # translated
        ("2a00:1450::5efe:10.0.0.1", True),  # ISATAP
        ("fec0::1", True),
        ("64:ff9b::808:808", False),  # where all there is has IPv6, names have such addresses
        ("2002:808:808::1", False),
        ("2a00:1450::5efe:8.8.8.8", False),
        ("1.1.1.1", False),
        ("2606:4700:4700::1111", False),
        ("name.invalid", False),
    ],
)
def test_which_addresses_are_private(host: str, private: bool) -> None:
    assert (download.private_address(host) is not None) == private


ADDRESSES = {
    "public.example": ["93.184.216.34", "2606:4700:4700::1111"],
    "mixed.example": ["93.184.216.34", "10.0.0.1"],
    "six.example": ["93.184.216.34", "::1"],
    "last.example": ["2606:4700:4700::1111", "93.184.216.34", "169.254.169.254"],
}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server of ours; whoever tries to connect afterwards is told so by an error."""

    def resolve(host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        return [(0, 0, 6, "", (address, port or 0)) for address in ADDRESSES[host]]

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError(f"would connect to {address[0]}:{address[1]}")

    monkeypatch.setattr(download.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(download.socket, "create_connection", connect)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("host", "private"), [("mixed.example", "10.0.0.1"), ("six.example", "::1"), ("last.example", "169.254.169.254")]
)
def test_a_name_with_one_private_address_among_others_is_refused(
    names: None, scheme: str, host: str, private: str
) -> None:
    """Which of its addresses a connection takes is not ours to choose."""
    with pytest.raises(PermissionError, match=f"refused: {host} is at the private address {private}"):
        download.opener(public_only=True).open(f"{scheme}://{host}/a.jpg", timeout=1)


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_public_names_are_connected_to(names: None, scheme: str, port: int) -> None:
    with pytest.raises(urllib.error.URLError, match=f"would connect to public.example:{port}"):
        download.opener(public_only=True).open(f"{scheme}://public.example/a.jpg", timeout=1)


def test_a_redirect_to_https_is_looked_at_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.redirects["/out.jpg"] = f"https://localhost:{site.server.server_port}/secret"
    real = download.private_address
    monkeypatch.setattr(download, "private_address", lambda host: None if host == "127.0.0.1" else real(host))
    with pytest.raises(PermissionError, match="refused: localhost is at the private address"):
        download.opener(public_only=True).open(site.url("/out.jpg"), timeout=5)
