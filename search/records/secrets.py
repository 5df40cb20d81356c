"""Keeps secrets in memory: passwords in URLs, and settings whose name says that they are one.

They may not reach a file, the terminal, the store, MLflow or a report. What is stored or shown goes through
:func:`without_secrets`. All texts for people go through :func:`scrubbed` as well, whatever library they came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_NAME = re.compile(r"(?i)(^|_|\.)(token|password|passwd|secret|key|credentials?)$")
"""The ends of the names of settings that are secrets."""

_IN_URL = re.compile(r"(?P<scheme>\b[\w+.-]+://)[^/?#\s'\"]*@")
"""The user and password of a URL; a password may contain anything that ends no URL, also ``@``."""
_IN_QUERY = re.compile(r"(?i)(?P<name>[?&;](?:\w*_)?(?:token|password|passwd|secret|key|credentials?)=)[^&;#\s'\"]+")

_SHORTEST = 4
"""Characters of a secret from which it is looked for in every text: shorter ones are parts of other words."""

_known: set[str] = set()


def is_secret(name: str, value: object) -> bool:
    """Return whether a setting holds a secret: by its name, or in a URL."""
    if not isinstance(value, str) or not value:
        return False
    return _NAME.search(name) is not None or _with_password(value) or _IN_QUERY.search(value) is not None


def _with_password(text: str) -> bool:
    return any(":" in found[0][len(found["scheme"]) :] for found in _IN_URL.finditer(text))


def remember(name: str, value: str) -> None:
    """Note the secret of a setting, which is hidden from now on wherever it comes up in a text."""
    if _NAME.search(name):
        found = [value]
    else:
        logins = (each[0][len(each["scheme"]) : -1] for each in _IN_URL.finditer(value))
        found = [login.partition(":")[2] for login in logins]
        found += [each[0].partition("=")[2] for each in _IN_QUERY.finditer(value)]
    _known.update(secret for secret in found if len(secret) >= _SHORTEST)


def scrubbed(text: str) -> str:
    """Return ``text`` without the users and passwords of URLs, and without the secrets that were remembered."""
    text = _without_logins(text)
    for secret in _known:
        text = text.replace(secret, HIDDEN)
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
