"""What a written link is as it is opened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ingest.links import NoLinkError, as_it_stands, opened, split_login


@pytest.mark.parametrize(
    ("written", "link"),
    [
        ("http://h.org/plain.jpg", "http://h.org/plain.jpg"),
        ("http://h.org/café.jpg", "http://h.org/caf%C3%A9.jpg"),
        ("http://h.org/caf%C3%A9 ü%20%zz", "http://h.org/caf%C3%A9%20%C3%BC%20%zz"),  # what is encoded stays
        ("http://h.org/two words.jpg?q=a b", "http://h.org/two%20words.jpg?q=a%20b"),
        ("http://h.org/c?w=80&amp;h=60", "http://h.org/c?w=80&h=60"),
        ("http://h.org/c?a=1&amp;amp;b=2&#38;c=3", "http://h.org/c?a=1&b=2&c=3"),
        ("http://h.org/c?a=1&copy=2", "http://h.org/c?a=1&copy=2"),  # no entity
        (" \tHTTP://EXÄMPLE.com:80/a\n", "http://xn--exmple-cua.com/a"),
        ("http://straße.de", "http://xn--strae-oqa.de/"),
        ("http://☃.net/x", "http://xn--n3h.net/x"),
        ("http://例え.jp/画像.jpg", "http://xn--r8jz45g.jp/%E7%94%BB%E5%83%8F.jpg"),
        ("http://my_host.org:8080/x", "http://my_host.org:8080/x"),
        ("https://h.org:443/a/../b/./c#part", "https://h.org/b/c"),
        ("http://h.org/a{b}|c^[d]\"e'", "http://h.org/a%7Bb%7D|c^[d]%22e'"),
        ("//h.org/x", "http://h.org/x"),
        ("www.example.org/a.jpg", "http://www.example.org/a.jpg"),
        ("localhost:8000/a.jpg", "http://localhost:8000/a.jpg"),
        ("https:\\\\h.org\\a", "https://h.org/a"),
        ("http://[::1]:80/x", "http://[::1]/x"),
        ("http://user:p w@h.org/x", "http://user:p%20w@h.org/x"),
        ("http://e%78ample.org/", "http://example.org/"),
        ("http://h.org/\ud800", "http://h.org/%EF%BF%BD"),
    ],
)
def test_links_are_opened_as_browsers_open_them(written: str, link: str) -> None:
    assert opened(written) == link
    assert opened(link) == link


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "there is no link"),
        ("a red boat", "this is not a link; expected one that begins with http://"),
        ("file:///etc/passwd", "refused: file: links are not opened"),
        ("data:image/png;base64,AAAA", "refused: a data: link holds its picture itself"),
        ("javascript:alert(1)", "refused: javascript:"),
        ("http://", "names no host"),
        ("http://h.org:99999/x", "there is no port 99999"),
        ("http://h h.org/x", "no name that could exist"),
        ("http://" + "a" * 64 + ".org/x", "no name that could exist"),
        ("http://a..b/x", "no name that could exist"),
    ],
)
def test_what_is_no_link_is_told_in_words(written: str, reason: str) -> None:
    with pytest.raises(NoLinkError, match=reason):
        opened(written)


@given(st.text(), st.sampled_from(["", "http://", "https://h.org/", "http://h.org/?"]))
def test_any_text_is_a_link_in_ascii_or_refused(text: str, start: str) -> None:
    try:
        link = opened(start + text)
    except NoLinkError:
        return
    assert link.isascii()
    assert not set(link) & set(" \t\r\n\x00#")
    assert opened(link) == link or "&" in link


def test_the_second_form_keeps_its_entities() -> None:
    assert as_it_stands("http://h.org/R&amp;D é.jpg") == "http://h.org/R&amp;D%20%C3%A9.jpg"
    assert as_it_stands("http://h.org/a.jpg?a=1&b=2") is None
    assert split_login("http://me:p%20w@h.org/a@b") == ("http://h.org/a@b", "me:p w")
    assert split_login("http://h.org/a@b") == ("http://h.org/a@b", None)
