"""Secrets are told from other settings, and go from every text."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from search.records import secrets
from search.records.secrets import (
    HIDDEN,
    is_beside_reference,
    is_secret,
    remember,
    remember_all,
    scrubbed,
    without_secrets,
)


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
        ("storage", "postgresql://user:1234/pass@host/db", True),
        ("storage", "postgresql://user:1234/pass@host:5432/db?mail=a@b", True),
        ("storage", "postgresql://me@server:pass@host/db", True),
        ("storage", "postgresql://host:5432/db", False),
        ("storage", "postgresql://host:5432/db?user=me@server", False),
        ("storage", "postgresql://[::1]:5432/db?user=me@server", False),
        ("storage", "postgresql://host/db?sslpassword=abc", True),
        ("storage", "sqlitecloud://user:pass@host/db", True),
        ("uri", "http://host:8080/a@b", False),
        ("uri", "http://host:8080/a@1.2.3", False),
        ("uri", "http://[::1]:8080/a@b", False),
        ("uri", "https://host/x?mail=a@b.c", False),
        ("uri", "http://host:8080/x?mail=a@b.c", False),
        ("uri", "http://user:1234/pass@host:5000", True),
        ("uri", "http://user:1234/pass@host.org/x", True),
        ("uri", "http://host/x?sv=1&sig=abc", True),
        ("uri", "http://host/x?X-Amz-Signature=abc", True),
        ("uri", "http://host/x?X-Amz-Credential=abc", True),
        ("uri", "http://host/x?X-Amz-Security-Token=abc", True),
        ("uri", "http://host/x?design=abc&author=me&bypass=1", False),
        ("db.pass", "abc", True),
        ("auth", "abc", True),
        ("headers.Authorization", "abc", True),
        ("bearer", "abc", True),
        ("accessKey", "abc", True),
        ("apiToken", "abc", True),
        ("dbPassword", "abc", True),
        ("tokens", "hf_abcdef", True),
        ("tracker.tokens.0", "hf_abcdef", True),
        ("api_tokens", "hf_abcdef", True),
        ("secrets", "abc", True),
        ("passwords.1", "abc", True),
        ("passwords", 1234, True),
        ("dsn", "abc", True),
        ("connection_string", "abc", True),
        ("connectionString", "abc", True),
        ("cookie", "abc", True),
        ("tokens", 128, False),
        ("tokens", "1000000", False),
        ("tokens", "task", False),
        ("prompt_tokens", "of the task", False),
        ("new_tokens", "of the task", False),
        ("max_tokens", "of the task", False),
        ("eos_token", "</s>", False),
        ("tokenizer.pad_token", "<pad>", False),
        ("token_classifier", "abc", False),
        ("compass", "abc", False),
        ("compass", 5, False),
        ("passes", "abc", False),
        ("passed_over", "abc", False),
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
        ("postgresql://u:1234/pw@host/db", "postgresql://host/db"),
        ("postgresql://me@server:pw@host/db", "postgresql://host/db"),
        ("http://host:8080/a@b and http://[::1]:80/a@b", "http://host:8080/a@b and http://[::1]:80/a@b"),
        ("postgresql://h/d?sslpassword=abc&a=1", f"postgresql://h/d?sslpassword={HIDDEN}&a=1"),
        ("http://h/x?a=1&X-Amz-Signature=abc", f"http://h/x?a=1&X-Amz-Signature={HIDDEN}"),
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


def test_a_secret_is_hidden_as_its_url_means_it_and_within_a_longer_one() -> None:
    remember("storage", "postgresql://user:canary%2F1@host/db")
    remember("dsn", "canary/1/more")
    assert scrubbed("canary%2F1, canary/1, canary/1/more") == f"{HIDDEN}, {HIDDEN}, {HIDDEN}"


def test_the_secrets_of_resolved_settings_are_hidden_in_every_text() -> None:
    remember_all({
        "storage": "postgresql://user:canary1@host/db",
        "tracker": {"uri": "http://host/?sig=canary2", "tokens": ["canary3"], "password": 1234567},
        "workload": {"new_tokens": 1024000, "tokens": "task"},
        "project": "quickstart",
    })  # fmt: skip
    told = "canary1 canary2 canary3 1234567 1024000 task quickstart"
    assert scrubbed(told) == f"{HIDDEN} {HIDDEN} {HIDDEN} {HIDDEN} 1024000 task quickstart"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("postgresql://u:pw@${oc.env:HOST}/db", True),
        ("http://${oc.env:HOST}/x?sig=abc", True),
        ("${oc.env:STUDIES,postgresql://u:pw@h/db}", True),
        ("http://u:1234/pw@${oc.env:HOST}:5000", True),
        ("postgresql://${oc.env:USER}:${oc.env:PW}@host/db", False),
        ("postgresql://u:${oc.env:PW}@host/db", False),
        ("postgresql://user@${oc.env:HOST}/db", False),
        ("http://${oc.env:HOST}:5000/a@b", False),
        ("http://host/x?sig=${oc.env:SIG}", False),
        ("postgresql://u:pw@host/db", False),
    ],
)
def test_a_secret_is_told_beside_a_reference(value: str, expected: bool) -> None:
    assert is_beside_reference(value) is expected


def test_no_setting_of_the_project_is_hidden() -> None:
    conf = Path(__file__).parents[3] / "conf"
    trees = {file: yaml.safe_load(file.read_text()) or {} for file in conf.rglob("*.yaml")}
    assert len(trees) > 50
    assert {file: tree for file, tree in trees.items() if without_secrets(tree) != tree} == {}


@pytest.mark.parametrize("unit", ["http://a:", "postgresql://a:", "https://u:8080/x?y=", "a@b://"])
def test_a_long_text_is_scrubbed_in_a_time_that_grows_with_its_length(unit: str) -> None:
    times = []
    for count in (2_000, 20_000):
        began = time.perf_counter()
        scrubbed(unit * count)
        times.append(time.perf_counter() - began)
    assert times[1] < 40 * times[0] + 0.05  # the square would be 100
