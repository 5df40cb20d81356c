"""Secrets are told from other settings, and go from every text."""

from __future__ import annotations

import pytest

from search.records import secrets
from search.records.secrets import HIDDEN, is_secret, remember, scrubbed, without_secrets


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("storage", "postgresql://user:pass@host/db", True),
        ("storage", "postgresql://user:p@ss:w@host:5432/db", True),
        ("storage", "postgresql://user:pa/ss@host/db", True),
        ("storage", "postgresql://user:p#a?s@host/db", True),
        ("storage", "postgresql://user@host/db", False),
        ("uri", "https://ghp_token@host/path", True),
        ("uri", "http://host:5000/path?mail=a@b", False),
        ("password", 12345678, True),
        ("api-key", "abc", True),
        ("apikey", "abc", True),
        ("pwd", "abc", True),
        ("storage", "sqlite:////home/a@b/studies.db", False),
        ("uri", "http://host:5000?token=abc", True),
        ("uri", "http://host:5000", False),
        ("api_key", "abc", True),
        ("hub.token", "abc", True),
        ("tokens", "128", False),
        ("keys", "a", False),
        ("monkey", "a", False),
        ("token", "", False),
        ("token", 5, False),
        ("text", "see user:pass@host", False),
    ],
)
def test_a_secret_is_told_by_its_name_or_by_its_url(name: str, value: object, expected: bool) -> None:
    assert is_secret(name, value) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "cannot open postgresql+psycopg://u:p@ss@host/db: refused",
            "cannot open postgresql+psycopg://host/db: refused",
        ),
        ("postgresql://u:pa/ss#w?d@host/db is away", "postgresql://host/db is away"),
        ("sqlite:////home/a@b/studies.db", "sqlite:////home/a@b/studies.db"),
        ("http://u:p@h/x and ftp://v:q@g/y", "http://h/x and ftp://g/y"),
        ("http://h/x?a=1&password=abc&b=2", f"http://h/x?a=1&password={HIDDEN}&b=2"),
        ("mail me@host.org: http://h", "mail me@host.org: http://h"),
        ("plain", "plain"),
    ],
)
def test_a_text_loses_the_logins_of_its_urls(text: str, expected: str) -> None:
    assert scrubbed(text) == expected
    assert scrubbed(expected) == expected


def test_a_secret_that_was_seen_is_hidden_in_every_text() -> None:
    remember("storage", "postgresql://user:canary1@host/db")
    remember("api_key", "canary2")
    remember("pin.key", "12")
    assert scrubbed("password canary1 of key canary2 at 12") == f"password {HIDDEN} of key {HIDDEN} at 12"
    remember("password", "123456")
    assert scrubbed('{"throughput": 0.123456}') == '{"throughput": 0.123456}'


def test_settings_keep_their_form_without_secrets() -> None:
    tree = {"storage": "postgresql://u:p@h/d", "model": {"token": "x", "tokens": 5}, "urls": ["http://a:b@c", "d"]}
    expected = {"storage": "postgresql://h/d", "model": {"token": HIDDEN, "tokens": 5}, "urls": ["http://c", "d"]}
    assert without_secrets(tree) == expected
    assert without_secrets(expected) == expected
