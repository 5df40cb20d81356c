"""The structure that docs/architecture.md promises, and that the tool which measures it sees what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.structure import ORDER, Structure

ROOT = Path(__file__).parents[1]
DATA = {"objectives.models.families"}
"""Files that hold data: one row for every type of model."""
CODE = Structure(ROOT)


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert CODE.circles == []


def test_packages_import_only_what_stands_below_them() -> None:
    units = {CODE.unit_of(name) for name in CODE.files}
    assert units == set(ORDER)
    assert CODE.back_arrows(ORDER) == []


@pytest.mark.parametrize(
    ("package", "entries", "loose"), [("search", 14, 3), ("objectives", 22, 8), ("paretune", 5, 5)]
)
def test_the_roots_stay_readable_at_one_glance(package: str, entries: int, loose: int) -> None:
    found = CODE.entries(package)
    assert found[0] <= entries
    assert found[1] <= loose


def test_files_and_functions_stay_small() -> None:
    assert {name: lines for name, lines in CODE.lines.items() if lines > 300 and name not in DATA} == {}
    assert {each.name: each.lines for each in CODE.functions if each.lines > 40} == {}
    assert {each.name: each.arguments for each in CODE.functions if each.arguments > 7} == {}


def test_docstrings_begin_with_a_sentence() -> None:
    assert CODE.fragments == []
    assert CODE.references == []


def test_who_imports_a_file_of_another_package_runs_its_init(tmp_path: Path) -> None:
    texts = {
        "a/__init__.py": "from objectives.a import one",
        "a/one.py": "from objectives.b import two",
        "a/three.py": "",
        "b/__init__.py": "",
        "b/two.py": "from objectives.a import three",
    }
    for name, text in texts.items():
        (tmp_path / "objectives" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "objectives" / name).write_text(text)
    assert Structure(tmp_path).circles == [["objectives.a.__init__", "objectives.a.one", "objectives.b.two"]]


def test_tests_stand_where_what_they_test_stands() -> None:
    for package in ("objectives", "search", "paretune"):
        folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests" / package).rglob("test_*.py")}
        assert [str(folder) for folder in folders if not (ROOT / folder).is_dir()] == []


@pytest.fixture
def wrong(tmp_path: Path) -> Structure:
    """A tree with one of every fault."""
    texts = {
        "search/low/__init__.py": "",
        "search/low/one.py": '"""Holds one."""\nfrom search.low import two\nfrom search.high import top\n',
        "search/low/two.py": '"""Of two."""\ndef f():\n    """See ``g``."""\n    from search.low.one import x\n',
        "search/high/__init__.py": "",
        "search/high/top.py": '"""Stands above."""\ndef g(a, b: tl.constexpr):\n    """The g of a."""\n',
        "objectives/three.py": '"""Counts to three."""\nclass A:\n    """Whether a."""\n    def h(self, c):\n'
        '        """Return c."""\nN = 3\n"""Of all."""\ndef n():\n    """Number of all."""\n',
        "objectives/four/__init__.py": "from objectives.four.a import x\n",
        "objectives/four/a.py": "from objectives.five.c import x\n",
        "objectives/four/b.py": "",
        "objectives/five/__init__.py": "",
        "objectives/five/c.py": "",
        "objectives/five/d.py": "from objectives.four.b import x\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Structure(tmp_path)


def test_the_tool_sees_circles_back_arrows_and_fragments(wrong: Structure) -> None:
    assert wrong.circles == [["search.low.one", "search.low.two"]]
    order = ("objectives.five", "objectives.four", "objectives.three", "search.low", "search.high")
    assert wrong.back_arrows(order) == [("objectives.five", "objectives.four"), ("search.low", "search.high")]
    assert wrong.entries("search") == (2, 0)
    assert wrong.entries("objectives") == (3, 1)
    assert set(wrong.fragments) == {
        "search.low.two.", "search.high.top.g", "objectives.three.A", "objectives.three.N", "objectives.three.n",
    }  # fmt: skip
    assert wrong.references == ["search.low.two.f"]
    assert max(each.arguments for each in wrong.functions) == 1
