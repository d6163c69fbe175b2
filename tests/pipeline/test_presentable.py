"""No secret of an address is shown or stored, whatever the way it could take."""

from __future__ import annotations

import io
import json
import pickle

import pytest

from pipeline.config import Section, build
from pipeline.errors import ConfigError, HolismError, StoreError
from pipeline.manifest import Manifest
from pipeline.presentable import holds_secret, presentable
from pipeline.progress import Progress
from pipeline.storage import Location

SECRET = "S3cr3t"
WITH_SECRET = [
    (f"s3://KEY:{SECRET}@bucket/x", "s3://***@bucket/x"),
    (f"s3://KEY:{SECRET}/and+more@bucket/x", "s3://***@bucket/x"),
    (f"s3://KEY:{SECRET}@more/and@bucket/x", "s3://***@bucket/x"),
    (f"s3://KEY:{SECRET}/bucket", "s3://***/bucket"),
    (f"http://{SECRET}@host:80/v1", "http://***@host:80/v1"),
    (f"sftp://me:{SECRET}@host/x", "sftp://***@host/x"),
    (f"https://host/x?X-Amz-Signature={SECRET}&y=1", "https://host/x?X-Amz-Signature=***&y=1"),
    (f"https://host/x?sv=1&sig={SECRET}", "https://host/x?sv=1&sig=***"),
    (f"simplecache::s3://KEY:{SECRET}@bucket", "simplecache::s3://***@bucket"),
]
WITHOUT = [
    "s3://bucket/day@2024/x?.tar",
    "http://host:8080/x@y",
    "https://host/@user/x",
    "http://[::1]:80/x",
    "abfs://container@account.dfs/x",
    "https://host/?tokenizer=clip",
    "a@b: no address",
]


@pytest.mark.parametrize(("text", "shown"), WITH_SECRET)
def test_secrets_are_hidden_and_the_rest_is_left(text: str, shown: str) -> None:
    assert holds_secret(text)
    assert presentable(text) == shown
    assert presentable(f"'key' is {text!r}, and x@y") == f"'key' is {shown!r}, and x@y"
    assert presentable(shown) == shown


@pytest.mark.parametrize("text", WITHOUT)
def test_other_addresses_stay_as_they_are(text: str) -> None:
    assert presentable(text) == text
    assert not holds_secret(text)


def test_errors_show_no_secret_and_steer_no_terminal() -> None:
    error = StoreError(f"\x1b[36mworker\x1b[39m: {WITH_SECRET[0][0]} is gone\nlook")
    assert str(error) == "worker: s3://***@bucket/x is gone\nlook"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert isinstance(error, HolismError)


def test_progress_lines_and_manifests_show_none() -> None:
    stream = io.StringIO()
    Progress("read", 1, "images", stream=stream).close(WITH_SECRET[0][0])
    warnings = (f"{WITH_SECRET[0][0]} is slow",)
    counts = {"reasons": {WITH_SECRET[1][0]: 2}}
    made = Manifest("ingest", "f", 1, {"path": WITH_SECRET[2][0]}, {}, "s3://b", (), counts, warnings=warnings)
    for text in (stream.getvalue(), made.to_bytes().decode(), str(made)):
        assert SECRET not in text
        assert "***" in text
    assert json.loads(made.to_bytes())["warnings"] == ["s3://***@bucket/x is slow"]


class Inner(Section):
    paths: tuple[str, ...] = ()


class Outer(Section):
    inner: Inner = Inner()


@pytest.mark.parametrize(("text", "shown"), WITH_SECRET)
def test_addresses_with_a_secret_are_refused_before_anything_is_stored(text: str, shown: str) -> None:
    with pytest.raises(ConfigError, match=r"'inner.paths' is .* from the environment") as refused:
        build(Outer, {"inner": {"paths": ["/fine", text]}})
    assert SECRET not in f"{refused.value} {refused.value!r}"
    assert shown in str(refused.value)
    with pytest.raises(ConfigError, match="put it into the environment") as refused:
        Location.of(text)
    assert SECRET not in f"{refused.value} {refused.value!r}"
