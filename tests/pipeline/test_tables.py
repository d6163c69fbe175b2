"""Tables as people bring them: quotation marks, encodings, types that change, columns by number, many files."""

from __future__ import annotations

import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.ingest import delimited
from pipeline.ingest import parquet as parquet_file
from pipeline.ingest.json_lines import NO_JSON
from pipeline.ingest.tables import Table, find_tables, read_table
from pipeline.storage import Location
from pipeline.texts import clean
from tests.pipeline.images import put

COLUMNS = {"file_column": "file", "caption_column": "caption"}


def opened(path: Path, columns: Any = None, **settings: Any) -> Table:
    return read_table(Location.of(path), columns or COLUMNS, texts=["caption_column"], **settings)


def rows_of(path: Path, columns: Any = None, **settings: Any) -> list[tuple[str | None, ...]]:
    """Rows with all their texts, flat."""
    return [(name, *texts) for name, texts in opened(path, columns, **settings)]


def faults(path: Path, **settings: Any) -> dict[str, tuple[int, str]]:
    table = opened(path, **settings)
    list(table)
    return {reason: (count, example) for reason, (count, example) in table.left_out.to_json().items()}


def parquet(path: Path, captions: pa.Array, **more: Any) -> Path:
    files = pa.array([f"{n}.jpg" for n in range(len(captions))])
    pq.write_table(pa.table({"file": files, "caption": captions, **more}), path)
    return path


@pytest.mark.parametrize(
    ("name", "content", "captions"),
    [
        ("a.csv", "file,caption\n0.jpg,007\n1.jpg,2020-01-05\n2.jpg,1e3\n", ["007", "2020-01-05", "1e3"]),
        ("crlf.csv", 'file,caption\r\n0.jpg,"one, ""two"""\r\n1.jpg,b\r\n', ['one, "two"', "b"]),
        ("lines.csv", 'file,caption\n0.jpg,"one\ntwo"\n1.jpg,"b\r\n\r\nc"\n', ["one\ntwo", "b\r\n\r\nc"]),
        ("mac.csv", "file,caption\r0.jpg,a\r1.jpg,b\r", ["a", "b"]),
        ("blank.csv", "\ufefffile,caption\n\n0.jpg,a\n,\n1.jpg,  \n2.jpg,NaN\n", ["a", None, None]),
        ("wide.csv", "n,caption,more,file\n1,a,,0.jpg\n2,b,x,1.jpg,,\n", ["a", "b"]),
        (
            "marks.tsv",
            'file\tcaption\n0.jpg\t"Vertigo poster\n1.jpg\ta 24" screen\n',
            ['"Vertigo poster', 'a 24" screen'],
        ),
        (
            "said.tsv",
            'file\tcaption\n0.jpg\t"Vertigo"\n1.jpg\t"a 24"" ""big"" one"\n',
            ['"Vertigo"', 'a 24" "big" one'],
        ),
        ("all.tsv", '"file"\t"caption"\n"0.jpg"\t"a ""cat"""\n"1.jpg"\t"b"\n', ['a "cat"', "b"]),
        ("return.tsv", "file\tcaption\r\n0.jpg\ta\rb\r\n1.jpg\tc\r\n", ["a\rb", "c"]),
        (
            "a.jsonl",
            '\ufeff{"file": "0.jpg", "caption": 1.50}\n\n{"caption": ["", "b"], "file": "1.jpg"}',
            ["1.50", "b"],
        ),
        ("a.ndjson", '{"file": "0.jpg", "caption": "party \\ud83c"}\n{"file": "1.jpg"}\n', ["party \ufffd", None]),
    ],
)
def test_texts_stay_as_they_stand(tmp_path: Path, name: str, content: str, captions: list[str | None]) -> None:
    expected = [(f"{n}.jpg", *([] if text is None else [text])) for n, text in enumerate(captions)]
    assert rows_of(put(tmp_path / name, content)) == expected
    assert rows_of(put(tmp_path / f"utf16-{name}", content.lstrip("\ufeff").encode("utf-16"))) == expected
    assert rows_of(put(tmp_path / f"{name}.gz", gzip.compress(content.encode()))) == expected


@pytest.mark.parametrize(
    ("rows", "mended"),
    [
        (["0.jpg,a", '1.jpg,"Vertigo poster', "2.jpg,two dogs", '3.jpg,a 24" screen', "4.jpg,e"], "line 3"),
        (["0.jpg,a", '1.jpg,"Vertigo poster', "2.jpg,two dogs"], "line 3"),
        (["0.jpg,a", '1.jpg,"Vertigo poster', "2.jpg,two dogs", '3.jpg,a screen of 24"', "4.jpg,e"], "line 3"),
        (['0.jpg,"an "old" dog"', '1.jpg,"one, two"', "2.jpg,c"], "line 2"),
    ],
)
def test_a_csv_row_with_a_mark_that_is_not_closed_costs_no_other(tmp_path: Path, rows: list[str], mended: str) -> None:
    path = put(tmp_path / "a.csv", "file,caption\n" + "\n".join(rows) + "\n")
    names = [name for name, *_ in rows_of(path)]
    assert names == [f"{n}.jpg" for n in range(len(rows))]
    assert all(len(row) == 2 for row in rows_of(path))
    assert faults(path) == {delimited.QUOTE: (1, f"a.csv {mended}")}


def test_marks_escaped_by_backslashes_as_spark_writes_them(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", 'file,caption\n0.jpg,"a \\"big\\" dog, asleep"\n1.jpg,b\n')
    assert rows_of(path) == [("0.jpg", 'a "big" dog, asleep'), ("1.jpg", "b")]
    assert not faults(path)


def test_rows_that_do_not_fit_are_counted_by_reason_and_line(tmp_path: Path) -> None:
    content = 'file,caption\n0.jpg,a, b\n1.jpg\n2.jpg,c\n3.jpg,"poster\n4.jpg,a\nscreen of 24"\n'
    path = put(tmp_path / "a.csv", content)
    assert rows_of(path)[:2] == [("1.jpg",), ("2.jpg", "c")]
    assert faults(path) == {
        delimited.LONG: (1, "a.csv line 2"),
        delimited.SHORT: (1, "a.csv line 3"),
        delimited.SWALLOWED: (1, "a.csv line 5"),
    }
    lines = put(tmp_path / "a.jsonl", '{"file": "0.jpg", "caption": "a"}\n[1]\n{"file": \n' + "[" * 100_000)
    assert rows_of(lines) == [("0.jpg", "a")]
    assert faults(lines) == {NO_JSON: (3, "a.jsonl line 2")}


def test_bytes_that_are_not_utf8_cost_their_own_text(tmp_path: Path) -> None:
    content = "file,caption\n0.jpg,a café\ncafé.jpg,a cat\n".encode("latin-1")
    for path in (put(tmp_path / "a.csv", content), put(tmp_path / "a.tsv", content.replace(b",", b"\t"))):
        assert rows_of(path) == [("0.jpg",), (r"caf\xe9.jpg", "a cat")]
        assert [count for count, _ in faults(path).values()] == [1, 1]
        assert rows_of(path, encoding="windows-1252") == [("0.jpg", "a café"), ("café.jpg", "a cat")]
    lines = b'{"file": "0.jpg", "caption": ["a caf\xe9", "ok"]}\n{"file": "1.jpg", "caption": "na\xc3\xafve"}\n'
    path = put(tmp_path / "a.jsonl", lines)
    assert rows_of(path) == [("0.jpg", "ok"), ("1.jpg", "naïve")]
    assert rows_of(path, encoding="windows-1252") == [("0.jpg", "a café", "ok"), ("1.jpg", "naïve")]
    with pytest.raises(InputError, match=r"it has caf\\xe9, file; give columns by number, if"):
        rows_of(put(tmp_path / "a.csv", "café,file\n".encode("latin-1")))
    with pytest.raises(InputError, match=r"cut.csv cannot be read as csv: 'utf-16"):
        rows_of(put(tmp_path / "cut.csv", "file,caption\n".encode("utf-16")[:-1]))


UTF8 = pa.string()


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        (pa.array(["a", None], pa.large_string()), ["a"]),
        (pa.array(["a", ""], pa.string_view()), ["a"]),
        (pa.array([b"a", b"\xe9"], pa.binary()), ["a"]),
        (pa.array([b"ab", b"cd"], pa.binary(2)), ["ab", "cd"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array([["a", "b"], None, []]), ["a", "b"]),
        (pa.array([["a", "b"], ["c", None]], pa.list_(UTF8, 2)), ["a", "b", "c"]),
        (pa.array([["a"], ["b"]], pa.large_list(pa.dictionary(pa.int8(), UTF8))), ["a", "b"]),
        (pa.array([None, None]), []),
        (pa.array([np.nan, None]), []),
    ],
)
def test_columns_of_parquet_that_hold_texts(tmp_path: Path, captions: pa.Array, expected: list[str]) -> None:
    rows = rows_of(parquet(tmp_path / "a.parquet", captions))
    assert [name for name, *_ in rows] == [f"{n}.jpg" for n in range(len(captions))]
    assert [text for _, *texts in rows for text in texts] == expected


def test_texts_of_parquet_that_are_not_utf8(tmp_path: Path) -> None:
    bad = pa.array([b"caf\xe9", b"ok"]).view(pa.string())
    for captions in (bad, bad.dictionary_encode(), pa.ListArray.from_arrays([0, 1, 2], bad)):
        path = parquet(tmp_path / "a.parquet", captions)
        assert rows_of(path) == [("0.jpg",), ("1.jpg", "ok")]
        assert rows_of(path, encoding="windows-1252") == [("0.jpg", "café"), ("1.jpg", "ok")]


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (pa.array([{"en": "a dog"}]), r"column 'caption' holds struct<en: string>, expected texts or lists of texts"),
        (pa.array([[{"en": "a"}]]), "holds list<.*struct<en: string>>"),
        (pa.array([[["a"]]]), "holds list<.*list<.*string>>"),
        (pa.array([7]), "holds int64"),
        (pa.array([1.5]), "a.parquet row 1: column 'caption' holds a number"),
        (pa.array([True]), "holds bool"),
        (pa.array([0], pa.timestamp("us", tz="UTC")), r"holds timestamp\[us, tz=UTC\]"),
        (pa.array([0], pa.date32()), r"holds date32"),
        (pa.array(["1.50"]).cast(pa.decimal128(5, 2)), r"holds decimal128\(5, 2\)"),
        (pa.array([[("en", "a")]], pa.map_(UTF8, UTF8)), "holds map<string, string"),
    ],
)
def test_other_columns_are_refused_by_file_column_and_type(tmp_path: Path, captions: pa.Array, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        rows_of(parquet(tmp_path / "a.parquet", captions))
    assert "a.parquet" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "kind"), [({"en": "a"}, "an object"), (True, "true or false"), ([["a"]], "a list within a list")]
)
def test_values_of_json_that_are_no_text_are_refused_with_their_line(tmp_path: Path, value: Any, kind: str) -> None:
    rows = [{"file": "0.jpg", "caption": "a"}, {"file": "1.jpg", "caption": value}]
    path = put(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=f"a.jsonl line 2: column 'caption' holds {kind}, expected texts or lists"):
        rows_of(path)
    with pytest.raises(InputError, match=r"a.jsonl line 2: column 'caption' holds .*, expected one text a row"):
        list(read_table(Location.of(path), {"file_column": "caption"}))


def test_types_that_change_or_come_late(tmp_path: Path) -> None:
    rows = [{"file": f"{n}.jpg"} for n in range(200)] + [
        {"file": "a.jpg", "caption": None, "score": 1},
        {"file": "b.jpg", "caption": "a boat", "score": "n/a"},
        {"file": 7, "caption": ["a cat", "one cat"], "score": {"half": "\ud83c"}},
    ]
    path = put(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert rows_of(path)[200:] == [("a.jpg",), ("b.jpg", "a boat"), ("7", "a cat", "one cat")]


def test_columns_by_number(tmp_path: Path) -> None:
    cc3m = put(tmp_path / "Train.tsv", 'a "very typical" bus\thttp://a/0.jpg\n"quoted\thttp://a/1.jpg\n')
    columns = {"url_column": 1, "caption_column": 0}
    expected = [("http://a/0.jpg", 'a "very typical" bus'), ("http://a/1.jpg", '"quoted')]
    assert rows_of(cc3m, columns) == expected
    assert rows_of(put(tmp_path / "a.csv", "a bus,http://a/0.jpg\n"), columns) == [("http://a/0.jpg", "a bus")]
    with pytest.raises(InputError, match=r"has no column 2 \(url_column\); it has columns 0 to 1$"):
        rows_of(cc3m, {"url_column": 2, "caption_column": 0})
    with pytest.raises(
        InputError, match=r"has no column 'url' .*; give columns by number, if its first line is no header"
    ):
        rows_of(cc3m, {"url_column": "url", "caption_column": 0})
    titled = put(tmp_path / "titled.tsv", "caption\turl\na\thttp://a\n")
    assert (
        rows_of(titled, columns, header=True)
        == rows_of(titled, {**columns, "url_column": "url"})
        == [("http://a", "a")]
    )
    with pytest.raises(InputError, match=r"column 1 \(url_column\): columns of JSON lines are given by name"):
        rows_of(put(tmp_path / "a.jsonl", "{}"), columns)


def test_repeated_names_are_told_apart_by_number(tmp_path: Path) -> None:
    names, by_number = ["file", "caption", "caption"], {"file_column": "file", "caption_column": 2}
    lines = put(tmp_path / "a.csv", "file,caption,caption\n0.jpg,a,b\n")
    table = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["0.jpg"]), pa.array(["a"]), pa.array(["b"])], names=names), table)
    for path in (lines, table):
        with pytest.raises(InputError, match=r"several columns 'caption' \(caption_column\); give one by .* 0: 1, 2"):
            rows_of(path)
        assert rows_of(path, by_number) == [("0.jpg", "b")]
        assert list(read_table(Location.of(path), {"file_column": "file"})) == [("0.jpg",)]  # nobody asked for them


def test_only_the_columns_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(
        tmp_path / "a.parquet", pa.array(["a", "b"]), wide=pa.array([[0.5] * 100] * 2), file2=pa.array([1, 2])
    )
    asked = []
    real = pq.ParquetFile.iter_batches
    monkeypatch.setattr(parquet_file, "BATCH", 1)
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda self, size, **kw: asked.append(kw["columns"]) or real(self, size, **kw)
    )
    assert rows_of(path) == [("0.jpg", "a"), ("1.jpg", "b")]
    assert asked == [["caption", "file"]]


def test_folders_globs_and_names_that_look_like_globs(tmp_path: Path) -> None:
    home = tmp_path / "set [v1]*"
    for number in range(3):
        put(home / "deep" / f"part-{number}.csv", f"file,caption\n{number}.jpg,{number}\n")
    put(home / "deep" / "_SUCCESS.csv", "")
    put(home / ".hidden" / "a.csv", "file\n")
    put(home / "readme.txt", "")
    files = [home / "deep" / f"part-{number}.csv" for number in range(3)]
    for path in (str(home), f"{home}/deep", f"{home}/deep/part-?.csv", f"{home}/*/*.csv"):
        assert [Path(file.uri) for file in find_tables(path, "the list")] == files
    assert [Path(file.uri) for file in find_tables(f"{home}/deep/part-[12].csv", "the list")] == files[1:]
    put(tmp_path / "spark" / "a.csv" / "part-0.csv", "")
    put(tmp_path / "spark" / "a.csv" / "_temporary" / "part-1.csv", "")
    assert [file.name for file in find_tables(f"{tmp_path}/spark/*.csv", "the list")] == ["part-0.csv"]
    odd = put(home / "[a].csv", "file,caption\n")
    put(home / "a.csv", "file,caption\n")
    assert find_tables(str(odd), "the list") == [Location.of(odd)]
    table = read_table(find_tables(f"{home}/deep", "the list"), COLUMNS, texts=["caption_column"])
    assert list(table) == [(f"{n}.jpg", (f"{n}",)) for n in range(3)]
    for path, message in [
        ("absent.csv", "the list .*absent.csv is not there"),
        ("*.csv", "is not there"),
        ("{0..9}.csv", "braces"),
    ]:
        with pytest.raises(InputError, match=message):
            find_tables(str(tmp_path / path), "the list")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is a folder without tables"):
        find_tables(str(tmp_path / "empty"), "the list")


def test_a_column_that_some_files_lack(tmp_path: Path) -> None:
    files = [
        Location.of(put(tmp_path / "a.csv", "file\n0.jpg\n")),
        Location.of(parquet(tmp_path / "b.parquet", pa.array(["b"]))),
    ]
    table = read_table(files, COLUMNS, texts=["caption_column"])
    assert list(table) == [("0.jpg", ()), ("0.jpg", ("b",))]
    assert table.left_out["a file without column 'caption'"] == 1
    with pytest.raises(InputError, match=r"a.csv has no column 'caption' \(caption_column\); it has file"):
        read_table(files[:1], COLUMNS)


def test_json_lines_that_lack_a_column_say_what_they_have(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", '{"id": 1}\n{"id": 2, "said": "a"}\n')
    with pytest.raises(InputError, match=r"has no column 'file' \(file_column\); it has id, said"):
        rows_of(path)
    with pytest.raises(InputError, match=r"a.jsonl cannot be read as jsonl: a.jsonl line 1 is no JSON object"):
        rows_of(put(tmp_path / "a.jsonl", "[{\n"))


def test_empty_tables(tmp_path: Path) -> None:
    assert rows_of(put(tmp_path / "a.csv", "file,caption\n")) == []
    assert rows_of(put(tmp_path / "a.jsonl", "")) == []
    assert rows_of(parquet(tmp_path / "a.parquet", pa.array([], UTF8))) == []
    for empty in (put(tmp_path / "a.csv", "\n"), put(tmp_path / "a.tsv", "")):
        for columns in (COLUMNS, {"file_column": 0, "caption_column": 1}):
            column = repr(columns["file_column"])
            with pytest.raises(
                InputError, match=rf"a.[ct]sv is empty; expected a table with column {column} \(file_col"
            ):
                rows_of(empty, columns)
    put(tmp_path / "b.csv", "file,caption\n0.jpg,a\n")
    table = read_table(find_tables(str(tmp_path / "?.csv"), "the list"), COLUMNS, texts=["caption_column"])
    assert list(table) == [("0.jpg", ("a",))]
    assert table.left_out.sentences("?.csv") == ["?.csv: an empty file: 1 time, first in a.csv"]


CELLS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=5)


def as_read(texts: list[str]) -> list[tuple[str | None, ...]]:
    kept = [None if text in delimited.MISSING else clean(text).text for text in texts]
    return [(f"{n}.jpg", *([] if text is None else [text])) for n, text in enumerate(kept)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=CELLS, ends=st.sampled_from(["\n", "\r\n"]), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_whatever_a_csv_quotes_comes_back(tmp_path: Path, texts: list[str], ends: str, quoting: Any) -> None:
    path = tmp_path / "a.csv"
    with open(path, "w", encoding="utf8", newline="") as file:
        writer = csv.writer(file, lineterminator=ends, quoting=quoting)
        writer.writerow(["file", "caption"])
        for number, text in enumerate(texts):  # Python before 3.13 forgets to quote one of the two
            writer.writerow([f"{number}.jpg", text.replace("\r", "\n") if ends == "\n" else text])
    assert rows_of(path) == as_read([text.replace("\r", "\n") if ends == "\n" else text for text in texts])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=CELLS)
def test_a_tsv_has_a_row_for_each_line_whatever_its_texts(tmp_path: Path, texts: list[str]) -> None:
    texts = [" ".join(re.split("[\t\n]", text)) for text in texts]
    content = "file\tcaption\n" + "".join(f"{n}.jpg\t{text}\n" for n, text in enumerate(texts))
    rows = rows_of(put(tmp_path / "a.tsv", content))
    assert [name for name, *_ in rows] == [f"{n}.jpg" for n in range(len(texts))]
    if not any(text.startswith('"') for text in texts):
        assert rows == as_read(texts)
