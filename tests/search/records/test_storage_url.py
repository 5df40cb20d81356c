"""A URL that no database could have is refused in one line, and without its password."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cli import main
from search.errors import ConfigError
from search.records.storage_url import clean_url, require_driver
from search.study.opening import open_storage

CANARY = "canary7secret"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://u:{CANARY}@h:54x32/db", "'postgresql://h:***'"),
        (f"postgresql+psycopg://u:{CANARY}@h:abc", "'postgresql+psycopg://h:***'"),
        ("postgresql://[::1/db", r"'postgresql://[:***'"),
        (f"postgresql://u:{CANARY}", "'postgresql://u:***'"),
        (f"mysql+pymysql://u:{CANARY}@h:/db", "'mysql+pymysql://h:***'"),
    ],
)
def test_a_port_that_is_no_number_is_refused(url: str, shown: str, tmp_path: Path) -> None:
    for refuse in (clean_url, require_driver, lambda given: open_storage(given, tmp_path)):
        with pytest.raises(ConfigError) as refused:
            refuse(url)
        said = str(refused.value)
        assert said.startswith("storage: a number expected as the port")
        assert shown in said
        assert CANARY not in said
        assert "\n" not in said


def test_another_kind_of_database_is_checked_before_a_study() -> None:
    with pytest.raises(ConfigError, match=r"storage: a number expected as the port.*'elsewhere://h:\*\*\*'"):
        require_driver("elsewhere://h:abc/db")


@pytest.mark.parametrize(
    "url",
    ["http://host:5000", "databricks://profile:prefix", "databricks", "postgresql+psycopg://u:p:w@[::1]:5432/db?a=b"],
)
def test_what_is_no_database_or_has_a_port_stays_as_it_is(url: str) -> None:
    assert clean_url(url, "tracker.uri") == url


@pytest.mark.parametrize("verb", ["plan", "report"])
def test_a_command_says_it_in_one_line(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiment=ci_tiny", "device=cpu"] if verb == "plan" else ["study=latest"]
    assert main([verb, *words, f"home={tmp_path}", f"storage=postgresql://u:{CANARY}@h:54x32/db"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("paretune: storage: a number expected as the port")
    assert told.count("\n") == 1
    assert CANARY not in told
