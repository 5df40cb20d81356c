"""Storage URLs are built from paths, never pasted: in a URL ``%20``, ``?`` and ``#`` mean something else.

A URL that a user gives stays as it is, but for the path of an sqlite file, which people write as they see it: the path
is taken literally where such a folder exists, and as a URL's (``%20`` is a space) where only that one does.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from search.errors import ConfigError
from search.records.secrets import remember, scrubbed

SQLITE = "sqlite:///"
LONGEST = 504
"""Bytes of the longest path that sqlite opens: its limit of 512 less the ending ``-journal``."""

_EXTRAS = {"psycopg": "'paretune[postgresql]'"}
_PLAIN_POSTGRESQL = re.compile(r"^postgres(ql)?://")
_DATABASE = re.compile(r"^(postgres(ql)?|mysql|mariadb|mssql|oracle)(\+\w+)?://")
_NO_PORT = re.compile(r"(?<=[^:/]):(?!//|\d+(?:[/?#]|$)).*")
"""The text in a port's place that is none: it may be a password whose ``@`` is missing."""
_QUERY = re.compile(r"\?(?P<query>\w+=[^/?&]*(?:&\w+=[^/?&]*)*)$")


def sqlite_url(path: Path, query: str = "", key: str = "home") -> str:
    """Return the URL of the sqlite file ``path``. Raises ConfigError, naming ``key``, where sqlite cannot open it."""
    size = len(os.fsencode(path))
    if any("\ud800" <= character <= "\udfff" for character in str(path)):
        raise ConfigError(f"{key}: a path in UTF-8 expected, got {str(path)!r}; choose another folder")
    if size > LONGEST:
        raise ConfigError(
            f"{key}: sqlite opens paths of at most {LONGEST} bytes, got {size}: {path}; choose a shorter one"
        )
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    # A file whose URL is not its path goes by the driver's name: MLflow makes folders for whatever follows sqlite:///
    url = url if url == f"{SQLITE}{path}" else url.replace("sqlite:", "sqlite+pysqlite:", 1)
    return f"{url}?{query}" if query else url


def sqlite_path(url: str) -> Path | None:
    """Return the file that an sqlite URL names, absolute; None for memory and for every other kind of storage."""
    if not re.match(r"sqlite(\+pysqlite)?:///(?!:memory:|file:).", url):
        return None
    written = url.partition(":///")[2]
    literal = Path(written)
    if not literal.is_file():
        literal = Path(_QUERY.sub("", written))
    meant = Path(unquote(str(literal)))
    if meant != literal and (url.startswith("sqlite+") or (meant.parent.is_dir() and not literal.parent.is_dir())):
        literal = meant
    return literal.absolute()


def clean_url(url: str, key: str = "storage") -> str:
    """Return ``url`` as SQLAlchemy reads it: an sqlite file's path is absolute and quoted, its options are kept.

    A plain URL of PostgreSQL goes by psycopg 3. The password is noted: no text shows it from now on.

    Raises ConfigError for a database whose port is no number.
    """
    path = sqlite_path(url)
    if path is None:
        remember(key, url)
        if _DATABASE.match(url):
            _require_port(url, key)
        return _PLAIN_POSTGRESQL.sub("postgresql+psycopg://", url)
    options = _QUERY.search(url)
    return sqlite_url(path, options["query"] if options and not str(path).endswith(options[0]) else "", key)


def _require_port(url: str, key: str) -> None:
    """Raise ConfigError where SQLAlchemy finds no number in the port's place."""
    try:
        make_url(url)
    except SQLAlchemyError:  # no URL at all: told by whoever connects
        return
    except ValueError:
        shown = _NO_PORT.sub(":***", redacted(url))
        raise ConfigError(
            f"{key}: a number expected as the port, as in postgresql://host:5432/name, got {shown!r}; leave it out for "
            "the usual port, and write an address of IPv6 in brackets"
        ) from None


def redacted(url: str) -> str:
    """Return a storage URL, or a text that contains one, without user and password."""
    return url if url.startswith("sqlite") else scrubbed(url)


def require_driver(url: str, key: str = "storage") -> None:
    """Raise ConfigError where ``url`` is no URL of a database, or where that database's driver is not installed."""
    url = clean_url(url, key)
    _require_port(url, key)
    try:
        make_url(url).get_dialect().import_dbapi()
    except ImportError as error:
        package = _EXTRAS.get(error.name or "", error.name)
        raise ConfigError(f"{key}: {redacted(url)} needs the package {error.name}: pip install {package}") from error
    except SQLAlchemyError as error:
        raise ConfigError(
            f"{key}: expected a URL as sqlite:///studies.db or postgresql://host/name, got {redacted(url)!r}"
        ) from error
