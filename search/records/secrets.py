"""Keeps secrets in memory: passwords in URLs, and settings whose name says that they are one.

They may not reach a file, the terminal, the store, MLflow or a report. What is stored or shown goes through
:func:`without_secrets`. All texts for people go through :func:`scrubbed` as well, whatever library they came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"

_START = r"(?:^|[_.-]|(?<=[a-z0-9])(?=[A-Z]))"
"""The beginning of a word of a name: ``accessKey`` has two."""
_PLACE = r"(?:\.\d+)*$"
"""The places in a list that belongs to a name."""
_NAME = re.compile(
    rf"{_START}(?i:(?:api|access|auth|account|private|secret)?(?:key|token)|pass|passwords?|passwd|pwd|passphrase|"
    rf"secrets?|credentials?|auth|authorization|bearer|dsn|connection[_-]?string|cookies?){_PLACE}"
)
"""The ends of the names of settings that are secrets."""
_OF_TEXTS = re.compile(rf"(?i)(?:^|[_.-])(?:bos|eos|pad|unk|sep|cls|mask|start|end|stop|image)_token{_PLACE}")
"""The names of a tokenizer's own tokens, which are no secrets."""
_SEVERAL = re.compile(rf"(?:(?:^|\.)|{_START}(?i:api|access|auth|bearer|hub)[_-]?)(?i:tokens){_PLACE}")
"""The names of lists of secrets, which are names of lengths as well."""
_ALSO_AS_NUMBER = re.compile(rf"(?i)(?:passwords?|passwd|pwd|passphrase|secrets?|(?:^|[_.-])pass){_PLACE}")
"""The ends of the names of settings whose numbers are secrets too."""

_USER = r"(?!\[[\da-fA-F:.]*\])[^/?#\s:'\"]*"
"""The user of a URL, who may hold an ``@``; an address of IPv6 is none."""
_PASSWORD = r"[^\s'\"]{0,4096}"
"""The password of a URL. It has an end, or a text of many URLs without one would take the square of its length."""
_QUERY_FOLLOWS = r"(?!\d{1,5}(?:/[^?@\s'\"]*)?\?[\w.-]+=)"
"""Not behind a port, a path and a query."""
_PATH_FOLLOWS = r"(?!\d{1,5}[/?#](?![^\s'\"]*@[\w.-]+(?::\d|\.[a-zA-Z]{2,}(?![\w.-]))))"
"""Not behind a port and a path of the web, whose ``@`` stands before no host."""
_IN_URL = re.compile(
    r"(?P<scheme>\b(?!(?:sqlite|file)(?:\+\w+)?:)[\w+.-]+://)(?:"
    rf"(?i:(?<=http://)|(?<=https://)){_USER}:{_QUERY_FOLLOWS}{_PATH_FOLLOWS}{_PASSWORD}@|"
    rf"(?i:(?<!http://)(?<!https://)){_USER}:{_QUERY_FOLLOWS}{_PASSWORD}@|"
    r"[^/?#\s'\":]*@)"
)
"""The user and password of a URL. A password goes up to the last ``@``: people write ``/`` and ``#`` as they are.

``:1234/`` begins a password of a database, as SQLAlchemy reads it, and a port of the web.
"""
_IN_QUERY = re.compile(
    r"(?i)(?P<name>[?&;#](?:[\w.-]*(?:token|password|passwd|pwd|passphrase|secret|key|credentials?|signature)|"
    r"(?:[\w.-]*[_.-])?(?:pass|auth|authorization|bearer|sig|dsn|cookies?))=)[^&;#\s'\"]+"
)
_REFERENCE = re.compile(r"\$\{[^}]*\}")

_SHORTEST = 6
"""Characters of a secret from which it is looked for in every text: shorter ones are parts of other words."""

_known: set[str] = set()


def is_secret(name: str, value: object) -> bool:
    """Return whether a setting holds a secret: by its name, or in a URL."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _ALSO_AS_NUMBER.search(name) is not None
    if not isinstance(value, str) or not value:
        return False
    return _is_named(name, value) or bool(_secrets_in(value))


def _is_named(name: str, value: str) -> bool:
    """Return whether a setting is a secret by its name; ``tokens`` that are a number or a short word are a length."""
    if _SEVERAL.search(name):
        return len(value) >= _SHORTEST and value.strip("0123456789.,_") != ""
    return _NAME.search(name) is not None and _OF_TEXTS.search(name) is None


def is_beside_reference(value: str) -> bool:
    """Return whether a URL has a secret of its own beside a reference (``${...}``), or within, as its default."""
    references = _REFERENCE.findall(value)
    return bool(references) and any(
        secret.strip("_") for text in (_REFERENCE.sub("_", value), *references) for secret in _secrets_in(text)
    )


def _secrets_in(text: str) -> list[str]:
    """Return the secrets of the URLs in ``text``: passwords, users of the web alone, which are tokens, and queries'."""
    found = []
    for url in _IN_URL.finditer(text):
        user, colon, password = url[0][len(url["scheme"]) : -1].partition(":")
        if colon or "http" in url["scheme"].lower():
            found.append(password if colon else user)
    return found + [each[0].partition("=")[2] for each in _IN_QUERY.finditer(text)]


def remember(name: str, value: str) -> None:
    """Note the secret of a setting, which is hidden from now on wherever it comes up in a text."""
    found = [*_secrets_in(value), *([value] if _is_named(name, value) else [])]
    both = {*found, *map(unquote, found)}  # drivers tell what a URL means
    _known.update(secret for secret in both if len(secret) >= _SHORTEST)


def remember_all(value: Any, name: str = "") -> None:
    """Note the secrets of nested settings whose references are resolved."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            remember_all(item, str(key))
    elif isinstance(value, list):
        for item in value:
            remember_all(item, name)
    elif is_secret(name, value):
        remember(name, str(value))


def scrubbed(text: str) -> str:
    """Return ``text`` without the users and passwords of URLs, and without the secrets that were remembered."""
    text = _without_logins(text)
    for secret in sorted(_known, key=len, reverse=True):  # one may contain another
        if secret in text:
            text = re.sub(rf"(?<![\w.]){re.escape(secret)}(?!\w)", HIDDEN, text)
    return text


def _without_logins(text: str) -> str:
    if "://" in text:
        text = _IN_URL.sub(r"\g<scheme>", text)
    return _IN_QUERY.sub(rf"\g<name>{HIDDEN}", text) if "=" in text else text


def without_secrets(value: Any, name: str = "") -> Any:
    """Return a copy of nested settings, whose URLs have no password and whose other secrets are hidden."""
    if isinstance(value, Mapping):
        return {key: without_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item, name) for item in value]
    if not is_secret(name, value):
        return value
    return HIDDEN if _is_named(name, str(value)) else _without_logins(value)
