"""Keeps secrets in memory: passwords in URLs, and settings whose name says that they are one.

They may not reach a file, the terminal, the store, MLflow or a report. What is stored or shown goes through
:func:`without_secrets`. All texts for people go through :func:`scrubbed` as well, whatever library they came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_NAME = re.compile(r"(?i)(^|[_.-])(token|password|passwd|pwd|passphrase|secret|(api)?key|credentials?)$")
"""The ends of the names of settings that are secrets."""
_ALSO_AS_NUMBER = re.compile(r"(?i)(password|passwd|pwd|passphrase|secret)$")
"""The ends of the names of settings whose numbers are secrets too."""

_IN_URL = re.compile(
    r"(?P<scheme>\b(?!sqlite|file)[\w+.-]+://)(?:[^/?#@\s:'\"]*:(?!\d+(?:[/?#]|$))[^\s'\"]*@|[^/?#\s'\"@:]*@)"
)
"""The user and password of a URL. A password goes up to the last ``@``: people write ``/`` and ``#`` as they are."""
_IN_QUERY = re.compile(r"(?i)(?P<name>[?&;](?:\w*_)?(?:token|password|passwd|secret|key|credentials?)=)[^&;#\s'\"]+")

_SHORTEST = 6
"""Characters of a secret from which it is looked for in every text: shorter ones are parts of other words."""

_known: set[str] = set()


def is_secret(name: str, value: object) -> bool:
    """Return whether a setting holds a secret: by its name, or in a URL."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _ALSO_AS_NUMBER.search(name) is not None
    if not isinstance(value, str) or not value:
        return False
    return _NAME.search(name) is not None or _with_password(value) or _IN_QUERY.search(value) is not None


def _with_password(text: str) -> bool:
    """Return whether a URL has a password, or a user of the web alone, which is a token."""
    return any(":" in _login(found) or found["scheme"].startswith("http") for found in _IN_URL.finditer(text))


def _login(found: re.Match[str]) -> str:
    return found[0][len(found["scheme"]) : -1]


def is_beside_reference(value: str) -> bool:
    """Return whether a URL has a password of its own beside a reference (``${...}``)."""
    logins = (_login(found).partition(":")[2] for found in _IN_URL.finditer(value))
    return "${" in value and any(re.sub(r"\$\{[^}]*\}", "", password) for password in logins)


def remember(name: str, value: str) -> None:
    """Note the secret of a setting, which is hidden from now on wherever it comes up in a text."""
    if _NAME.search(name):
        found = [value]
    else:
        found = [(login.partition(":")[2] or login) for login in map(_login, _IN_URL.finditer(value))]
        found += [each[0].partition("=")[2] for each in _IN_QUERY.finditer(value)]
    _known.update(secret for secret in found if len(secret) >= _SHORTEST)


def scrubbed(text: str) -> str:
    """Return ``text`` without the users and passwords of URLs, and without the secrets that were remembered."""
    text = _without_logins(text)
    for secret in _known:
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
    return HIDDEN if _NAME.search(name) else _without_logins(value)
