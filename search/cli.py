"""The command ``paretune``. Each verb is one module below ``search.commands``, imported when it is called."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from search.errors import ConfigError, Interrupted, ParetuneError
from search.executors.signals import unwrapped
from search.space.instantiate import nearest
from search.terminal.console import prepare_streams, warnings_shown
from search.terminal.plain_text import one_line

RARELY = 100_000
"""New objects after which Python looks for cycles: at its own 700, imports and rows take a tenth longer."""

VERBS = {
    "run": "run a study, or with -m a sweep of studies",
    "plan": "print what a study would search, and which cells cannot run and why; measures nothing",
    "check": "load the model, score four examples and time one run; prints the result and stores nothing",
    "report": "write a study's report again, also for another accuracy floor or other objectives; measures nothing",
    "best": "print the recommended candidate of a study as JSON",
    "compare": "put two studies side by side: the cells that both measured, and their Pareto fronts",
    "export": "write a candidate of a study as a folder that objectives.load reads; transformers too, where it can",
    "metrics": "list the metrics that objectives=[...] may name, and what each means",
    "studies": "list what a store holds; export a study as one file, or import one",
    "sync": "send a stored study to MLflow: what is missing there, one run per trial",
    "ui": "show studies in the browser, with MLflow",
    "fetch": "download the models and data that the presets use",
}

HELP = """paretune - prune, quantise and batch a language model; get the measured Pareto front above an accuracy floor

usage: paretune <command> [key=value ...]

{verbs}

words:
  candidate   settings to measure: how the model is pruned and quantised, and how it runs
  cell        one combination of the searched values, such as ratio 0.2, 8 bits, batch size 4
  baseline    the unpruned 16-bit model at the first batch size; every candidate is compared with it
  feasible    reaches the accuracy floor, by default a share of the baseline's accuracy
  front       the feasible candidates that none dominates: as good in every objective, and better in one

examples:
  paretune fetch                                        download everything the presets need
  paretune run experiment=quickstart                    run the demo study
  paretune run experiment=quickstart n_trials=48        continue it up to 48 trials
  paretune check model=causal_lm model.path=./my-model task=language_modeling     try the model with the task
  paretune run -m experiment=ci_tiny accuracy_floor.epsilon=0.9,0.99      two studies
  paretune run model=causal_lm model.path=./my-model task=language_modeling accuracy_floor.epsilon=0.98
  paretune report study=latest accuracy_floor.epsilon=0.9                 another floor, without new trials
  paretune run --help                                   show all settings and their choices
  paretune best --help                                  show what a command takes

exit codes: 0 success (of a study: a feasible front), 1 failure, 2 bad input, 3 nothing feasible, 130/143 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Call the command that ``argv`` names and return the exit code. An error is shown as one line on stderr.

    None: the words of this process, which ends with the command.
    """
    gc.set_threshold(RARELY)
    prepare_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(HELP.format(verbs="\n".join(f"  {verb:9}{text}" for verb, text in VERBS.items())))
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("paretune"))
        return 0
    try:
        with unwrapped(), warnings_shown():
            return _call(arguments[0], arguments[1:])
    except BrokenPipeError:  # the reader left: ``paretune best | head``
        sys.stdout = None
        return 0
    except OSError as error:
        if "debug=true" in arguments:
            raise
        print(f"paretune: {one_line(str(error))} (debug=true shows where)", file=sys.stderr)
        return 2
    except ParetuneError as error:
        if "debug=true" in arguments:
            raise
        print(f"paretune: {one_line(str(error))}", file=sys.stderr)
        if isinstance(error, Interrupted) and argv is None:
            _leave_at_once_with(error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        print("paretune: interrupted", file=sys.stderr)
        if argv is None:
            _leave_at_once_with(130)
        return 130


def _leave_at_once_with(code: int) -> None:
    """Let one more signal end the process with ``code``: while Python ends, it would take the signal's own."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os._exit(code))


def _call(verb: str, arguments: list[str]) -> int:
    if verb not in VERBS:
        raise ConfigError(f"unknown command {verb!r}{nearest(verb, list(VERBS))}; known: {', '.join(VERBS)}")
    module = importlib.import_module(f"search.commands.{verb}")
    if verb != "run" and {"-h", "--help"} & set(arguments):
        print(module.__doc__)
        return 0
    code: int = module.main(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
