"""Texts on which tokenizers differ: scripts, marks, digits, white space, signs, and special tokens inside."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

_WRITTEN = (
    "Hello, world! It's 2026-12-01; we'll see. I'VE I'm he'd THEY'RE don’t O'Neill's",
    "1 12 123 1234 12345 0x1F 3.14159 1,000,000 ½ ² ⅷ ٣٤٥ १२३ Ⅻ",
    "  leading, double  spaces,   three    four     and trailing  ",
    "tabs\tand\t\ttabs \t mixed\nnew\n\nlines\n\n\n   indented\r\nwindows\r\n\r\n end \n",
    "def f(x):\n    return {'a': [1, 2], \"b\": x ** 2}  # done\n\n\nclass A(B):\n\tpass\n",
    "https://example.org/a_b-c?d=e&f=%20#g user@mail.example C:\\temp\\x.txt $HOME ../.. <b>&amp;</b>",
    "ÀÉÎÕÜ ñ ç ß Straße Ærø Łódź čeština İstanbul ıi ǅ ǈ naïve",
    "e\u0301 o\u0308 a\u030a \u1e9b\u0323 zo\u0308e",
    "Ελληνικά κείμενο Русский текст Українська мова ქართული Հայերեն",
    "中文文本，没有空格。日本語のテキスト、カタカナ。 한국어 텍스트입니다. ｆｕｌｌ　ｗｉｄｔｈ １２３",
    "العربية نص ١٢٣ עברית טקסט हिन्दी पाठ क्ष বাংলা ไทยไม่มีช่องว่าง ខ្មែរ",
    "😀 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 ❤️ ☺ ★ → ∑ ∞ ≠ ½ € £ ¥ ©",
    "\u00a0nbsp\u2003em\u3000ideographic\u200bzero\u200djoin\u2028line\u2029par\ufeffbom\u0085nel",
    "\x01\x02\x1b[0m\x7f control",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa !!!!!!!!!!!!!!!! ................ ================ ____",
    "CamelCaseWords andSome snake_case_words kebab-case-words UPPER lower MiXeD",
    "“quotes” ‘single’ «guillemets» — dash – en … … ‽ ¿Qué? ¡Sí!",
    "a", " ", "  ", "\n", " \n ", "\n\n ", "\t", "'", "''s", " 's", "'S x", "1a1", "a1 b22 c333",
)  # fmt: skip
_SCRIPTS = (
    (0x20, 0x7E), (0x20, 0x40), (0xA1, 0x17F), (0x391, 0x3C9), (0x410, 0x44F), (0x5D0, 0x5EA), (0x621, 0x64A),
    (0x660, 0x669), (0x905, 0x939), (0xE01, 0xE2E), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FA5),
    (0xAC00, 0xD7A3), (0x2010, 0x2027), (0x20A0, 0x20AC), (0x2190, 0x21FF), (0x300, 0x32F), (0x1F600, 0x1F64F),
)  # fmt: skip
"""Ranges of characters that have long been in Unicode, so that all tables of its properties agree on them."""
_GAPS = ("", "", "", " ", " ", "  ", "\n", "'", "'s ", ".", "7")
_RANDOM = 300


def odd_texts() -> list[str]:
    """Return texts without special tokens, the same ones every time."""
    return [*_WRITTEN, *_mixtures(random.Random(0))]


def texts_with(special: Sequence[str], inside: bool) -> list[str]:
    """Return texts that end with ``special`` tokens, and such that have them ``inside``."""
    forms = ("{0}", "Hello{0}", "x\n{0}", "{0}{0}")
    middle = ("{0}Hello", "a {0} b", "a{0}b", "{0}\nuser", " {0}{0} x") if inside else ()
    return [form.format(token) for token in special for form in (*forms, *middle)]


def chats(tokenizer: Any) -> list[str]:
    """Return a conversation as the tokenizer's chat template writes it; nothing where it has none, or a special one."""
    turns = [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": " I'm well.\n"}]
    if not isinstance(getattr(tokenizer, "chat_template", None), str):
        return []
    try:
        return [tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)]
    except Exception:  # templates are programs; one that takes no such turns says nothing here
        return []


def _mixtures(choose: random.Random) -> Iterator[str]:
    for _ in range(_RANDOM):
        parts = []
        for _ in range(choose.randint(2, 8)):
            first, last = choose.choice(_SCRIPTS)
            parts.append("".join(chr(choose.randint(first, last)) for _ in range(choose.randint(1, 5))))
            parts.append(choose.choice(_GAPS))
        yield "".join(parts)
