"""Rows are what stands in the files, whatever their kind, and what is wrong is named with its file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from objectives.errors import DataError
from objectives.tasks.data import arrow_rows
from objectives.tasks.data.files import read_rows
from objectives.tasks.data.txt import SECTION

ROWS = [{"text": 'a "quoted", text\nof two lines', "label": "x"}, {"text": "später 中文", "label": "y"}]


def csv_(file: Path) -> None:
    pd.DataFrame(ROWS).to_csv(file, index=False)


def tsv(file: Path) -> None:
    pd.DataFrame(ROWS).to_csv(file, index=False, sep="\t")


def jsonl(file: Path) -> None:
    file.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")


def json_(file: Path) -> None:
    file.write_text(json.dumps(ROWS))


def parquet(file: Path) -> None:
    pd.DataFrame(ROWS).to_parquet(file)


def with_mark(file: Path) -> None:
    pd.DataFrame(ROWS).to_csv(file, index=False, encoding="utf-8-sig")


def arrow_stream(file: Path) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(str(file), table.schema) as stream:
        stream.write_table(table)


def arrow_file(file: Path) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(str(file), table.schema) as stream:
        stream.write_table(table)


def feather(file: Path) -> None:
    pd.DataFrame(ROWS).to_feather(file)


KINDS: dict[str, Callable[[Path], None]] = {
    "a.csv": csv_, "a.tsv": tsv, "a.jsonl": jsonl, "a.json": json_, "a.parquet": parquet, "A.CSV": with_mark,
    "stream.arrow": arrow_stream, "file.arrow": arrow_file, "a.feather": feather, "stream.feather": arrow_stream,
}  # fmt: skip


def read(path: Path, **settings: Any) -> list[dict[str, Any]]:
    return [dict(row.values) for row in read_rows(str(path), "task.data", **settings)]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name)
    assert read(tmp_path / name) == ROWS


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "2.txt").write_text("third\n")
    (tmp_path / "1.txt").write_text("first\n\nsecond\n")
    (tmp_path / ".hidden.txt").write_text("no\n")
    (tmp_path / "notes.md").write_text("no\n")
    rows = read_rows(str(tmp_path), "task.data")
    assert [row.values["text"] for row in rows] == ["first", "second", "third"]
    places = ("1.txt, line 1", "1.txt, line 3", "2.txt, line 1")
    assert [row.place for row in rows] == [f"{tmp_path.name}/{place}" for place in places]


@pytest.mark.parametrize("name", ["README.txt", "readme.TXT", "License.txt", "NOTICE.txt", "sub/COPYING.txt"])
def test_what_tells_about_a_folder_is_none_of_its_examples(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / name).write_text("All rights reserved.\n")
    with pytest.raises(DataError, match=r"holds no file of a kind that is read"):
        read(tmp_path)
    (tmp_path / "a.txt").write_text("an example\n")
    (tmp_path / "license plates.txt").write_text("another\n")
    (tmp_path / "notice.csv").write_text("text\na third\n")
    assert [row["text"] for row in read(tmp_path)] == ["an example", "another", "a third"]
    assert read(tmp_path / name) == [{"text": "All rights reserved."}]  # where it is asked for


TAG = {"names": ["O", "B-PER", "I-PER"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    ("feature", "value", "found"),
    [
        ({"names": ["neg", "pos"], "_type": "ClassLabel"}, 1, "pos"),
        ({"names": ["neg", "pos"], "_type": "ClassLabel"}, None, None),
        ({"feature": TAG, "_type": "Sequence"}, [1, 2, 0], ["B-PER", "I-PER", "O"]),
        ([TAG], [1, 0], ["B-PER", "O"]),
        ({"feature": {"tag": TAG, "at": {"dtype": "int32"}}, "_type": "Sequence"}, {"tag": [1], "at": [1]},
         {"tag": ["B-PER"], "at": [1]}),
        ([{"tag": TAG}], [{"tag": 2}], [{"tag": "I-PER"}]),
        ({"inner": TAG}, {"inner": 1}, {"inner": "B-PER"}),
        ({"dtype": "int64", "_type": "Value"}, 1, 1),
    ],
)  # fmt: skip
def test_what_datasets_saved_is_read_with_the_names_of_its_classes(
    tmp_path: Path, feature: Any, value: Any, found: Any
) -> None:
    import pyarrow as pa

    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature, "text": {"dtype": "string"}}}})}
    table = pa.table({"text": ["a"], "label": [value]}).replace_schema_metadata(metadata)
    for name in ("data-00000-of-00001.arrow", "cache-1f2e3d4c.arrow"):
        with (tmp_path / name).open("wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    for state in ("{}", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})):
        (tmp_path / "state.json").write_text(state)
        (tmp_path / "dataset_info.json").write_text("{}")
        assert read(tmp_path) == [{"text": "a", "label": found}]


@pytest.mark.parametrize("state", ["[1]", "{", '"a"'])
def test_a_state_of_a_users_own_hides_no_file(tmp_path: Path, state: str) -> None:
    import pyarrow as pa

    table = pa.table({"text": ["a"]})
    with (tmp_path / "cache-1.arrow").open("wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    (tmp_path / "state.json").write_text(state)
    assert not arrow_rows.is_cache(tmp_path / "cache-1.arrow")


def test_lines_are_those_of_an_editor_and_rows_of_other_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\u2028still one\x0cand\x85on\r\ntwo\rthree\n", newline="")
    assert [row.values["text"] for row in read_rows(str(tmp_path / "a.txt"), "task.data")] == [
        "one\u2028still one\x0cand\x85on", "two", "three",
    ]  # fmt: skip
    (tmp_path / "a.csv").write_text('text,label\n"one\nand on",a\n\ntwo,b\n')
    (tmp_path / "a.json").write_text('[\n{"text": "one"},\n\n{"text":\n"two"}]')
    places = [[row.place for row in read_rows(str(tmp_path / name), "task.data")] for name in ("a.csv", "a.json")]
    assert places == [["a.csv, line 2", "a.csv, line 5"], ["a.json, row 1", "a.json, row 2"]]


def test_the_splits_of_datasets_are_named(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"holds the splits train, test; name one of them: .*/train"):
        read(tmp_path)


def test_quotes_of_a_tsv_that_do_not_fit_are_characters(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('source\ttarget\n"an open quote\tx\nb\t5" wide\n')
    assert read(tmp_path / "a.tsv") == [
        {"source": '"an open quote', "target": "x"},
        {"source": "b", "target": '5" wide'},
    ]


@pytest.mark.parametrize(("unit", "texts"), [("line", 60), ("section", 2), ("document", 1)])
def test_a_txt_is_lines_or_sections_or_one_document(tmp_path: Path, unit: Any, texts: int) -> None:
    text = "".join("word " * 24 + ("\n\n" if line % 5 == 4 else "\n") for line in range(60))
    (tmp_path / "a.txt").write_text(text)
    rows = read_rows(str(tmp_path / "a.txt"), "task.data", unit)
    assert len(rows) == texts
    together = "\n".join(row.values["text"] for row in rows)
    assert together.split() == text.split()
    assert unit != "section" or SECTION <= len(rows[0].values["text"]) < 2 * SECTION
    assert text.splitlines()[rows[-1].number - 1].strip()


BAD: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.jsonl", b"\n", "holds no rows"),
    "no JSON": (
        "a.jsonl", b'{"a": 1}\n{"a": \n[1]\n{"a": 2}',
        "2 of 4 rows are wrong: a.jsonl, line 2 is no JSON (Expecting value: line 1 column 7 (char 6)); "
        "a.jsonl, line 3 is a JSON list, not an object with columns",
    ),
    "fields": ("a.csv", b"text,label\na,b\nc\nd,e,f\n", "2 of 3 rows are wrong: a.csv, line 3 has 1 fields"),
    "twice": ("a.csv", b"text,text\na,b\n", "names the column 'text' twice"),
    "not UTF-8": ("a.txt", b"caf\xe9\n", "cannot read a.txt: byte 3 is not UTF-8; save the file as UTF-8"),
    "unknown": ("a.xls", b"x", ".txt, .csv, .tsv, .jsonl, .json, .parquet, .arrow, .feather are read, got .xls"),
    "no parquet": ("a.parquet", b"x" * 40, "cannot read a.parquet: "),
    "a key twice": (
        "a.jsonl", b'{"text": "a"}\n{"text": "a", "text": "z"}\n{"text": "b", "meta": [{"id": 1, "id": 1}]}\n',
        "2 of 3 rows are wrong: a.jsonl, line 2 names the key 'text' twice; a.jsonl, line 3 names the key 'id' twice",
    ),
    "a key twice in a list": (
        "a.json", b'[{"text": "a"}, {"text": "a", "label": 1, "label": 2}]',
        "1 of 2 rows are wrong: a.json, row 2 names the key 'label' twice",
    ),
    "a list": ("a.json", b'{"a": 1}', "a list of objects expected, got dict"),
    "half a character": (
        "a.jsonl", b'{"text": "a"}\n{"text": ["b", "c\\ud83d"]}\n',
        r"1 of 2 rows are wrong: a.jsonl, line 2 holds half of a surrogate pair (\ud83d), which is no character",
    ),
    "deep": ("a.jsonl", b'{"a": ' + b"[" * 9000 + b"]" * 9000 + b"}", "has lists or objects that lie more than 64"),
    "fairly deep": ("a.jsonl", b'{"a": ' + b"[" * 80 + b"]" * 80 + b"}", "line 1 has lists or objects that lie"),
    "a deep list": ("a.json", b"[" * 9000 + b"]" * 9000, "cannot read a.json: it has lists or objects that lie"),
    "quotes": (
        "a.csv", b'text,label\n"a,b\n',
        "a.csv, line 2 cannot be read, nor what follows (unexpected end of data); within quotes, a quote is",
    ),
    "semicolons": ("a.csv", b"text;label\na, b;c\n", "columns are divided by ';' here, a csv by commas, a tsv by tabs"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_in_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    name, content, said = BAD[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert said in str(caught.value)
    assert str(caught.value).startswith("task.data: ")
    assert "\n" not in str(caught.value)


def test_many_wrong_rows_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "a\n" * 9 + "b,c\n")
    with pytest.raises(DataError, match=r"9 of 10 rows are wrong: .*line 4 has 1 fields, the header 2; and 6 more"):
        read(tmp_path / "a.csv")


def test_what_is_not_there_is_named_with_what_is_like_it(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"tset\.jsonl not found; beside it: test\.jsonl"):
        read(tmp_path / "tset.jsonl")


def test_a_file_of_an_asset_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    jsonl(tmp_path / "set" / "dev.jsonl")
    monkeypatch.setattr("objectives.tasks.data.files.locate", lambda name: {"held": tmp_path}[name])
    assert [dict(row.values) for row in read_rows("asset:held/set/dev.jsonl", "task.data")] == ROWS


def test_of_an_asset_with_several_files_one_is_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    jsonl(tmp_path / "set" / "dev.jsonl")
    (tmp_path / "paretune-asset.json").write_text("{}")
    monkeypatch.setattr("objectives.tasks.data.files.locate", lambda name: tmp_path)
    assert [dict(row.values) for row in read_rows("asset:held", "task.data")] == ROWS  # it has no choice
    jsonl(tmp_path / "set" / "test.jsonl")
    for path in ("asset:held", "asset:held/"):
        with pytest.raises(DataError) as caught:
            read_rows(path, "task.data")
        assert str(caught.value) == (
            f"task.data: {path} holds 2 files; name one of them: asset:held/set/dev.jsonl, asset:held/set/test.jsonl"
        )


def test_an_unknown_asset_is_refused_by_the_setting_that_names_it() -> None:
    with pytest.raises(DataError, match=r"^task\.calibration: no asset is called 'nope'; known are smollm2"):
        read_rows("asset:nope/dev.jsonl", "task.calibration")


def test_quotes_of_sentences_that_were_split_swallow_no_rows(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text('text\ttarget\nHe said.\t"I go.\nb\tc\nd\te\nThen.\tI come."\n')
    assert [row.values["text"] for row in read_rows(str(file), "task.data")] == ["He said.", "b", "d", "Then."]
    file.write_text('text\ttarget\n"two\nlines"\t"a ""b"""\n')
    assert [row.values for row in read_rows(str(file), "task.data")] == [{"text": "two\nlines", "target": 'a "b"'}]
