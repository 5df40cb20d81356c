"""Makes names from other texts: bounded in bytes, valid as file names, and never the same for two texts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

LONGEST = 80
"""Bytes of a name that is made from settings."""
LONGEST_FILE = 200
"""Bytes of a file's name, which may be 255: endings such as ``.lock`` and ``-recut`` follow."""


def bounded(text: str, longest: int = LONGEST_FILE) -> str:
    """Return ``text`` where it fits into ``longest`` bytes of UTF-8, else its beginning and a hash of it all."""
    data = text.encode(errors="replace")
    return text if len(data) <= longest else _hashed(text, text, longest)


def name_of(settings: Sequence[str], longest: int = LONGEST) -> str:
    """Return ``key=value`` texts as one name of letters, digits and ``_.,=-``.

    Where a character is dropped or the name is too long, a hash tells it from others that would look the same.
    """
    text = ",".join(settings)
    safe = re.sub(r"[^\w.,=\-]+", "_", text).strip("_")
    return safe if safe == text and len(safe.encode()) <= longest else _hashed(text, safe, longest)


def _hashed(text: str, shown: str, longest: int) -> str:
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    kept = shown.encode(errors="replace")[: longest - len(digest) - 1].decode(errors="ignore")
    return f"{kept}-{digest}".lstrip("-")
