"""The command ``paretune``. Each verb is one module below ``search.commands``, imported when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from search.errors import ConfigError, ParetuneError
from search.space.instantiate import nearest
from search.terminal.console import prepare_streams, warnings_shown
from search.terminal.plain_text import one_line

VERBS = {
    "run": "run a study, or with -m a sweep of studies",
    "plan": "say what a study would search, and which pairs no runtime takes; runs nothing",
    "check": "load the model, score four examples, time one run, and say what was seen; keeps nothing",
    "report": "write a study's report again, also for another floor or other objectives",
    "best": "print the recommended candidate of a study",
    "compare": "set two studies side by side: ratios of their cells, and what their fronts cover",
    "export": "write a candidate of a study as a folder for objectives.load; transformers opens it too where it can",
    "metrics": "list every metric that objectives=[...] may name, and what each means",
    "ui": "browse studies in MLflow's pages",
    "fetch": "download models and data that the presets use",
}

HELP = """paretune - prune, quantise and batch a language model; get the measured Pareto front above an accuracy floor

usage: paretune <command> [key=value ...]

{verbs}

examples:
  paretune fetch                                        everything the presets need
  paretune run experiment=quickstart                    the demo study
  paretune run experiment=quickstart n_trials=48        go on with it
  paretune check model=causal_lm model.path=./my-model task=language_modeling     does it work at all?
  paretune run -m experiment=ci_tiny accuracy_floor.epsilon=0.9,0.99      two studies
  paretune run model=causal_lm model.path=./my-model task=language_modeling accuracy_floor.epsilon=0.98
  paretune report study=latest accuracy_floor.epsilon=0.9                 another floor, no new trials
  paretune run --help                                   all settings and their choices

exit codes: 0 a feasible front, 2 bad input, 3 nothing feasible, 130/143 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code. Errors for a person are one line on stderr."""
    prepare_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(HELP.format(verbs="\n".join(f"  {verb:8}{text}" for verb, text in VERBS.items())))
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("paretune"))
        return 0
    try:
        with warnings_shown():
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
        return error.exit_code
    except KeyboardInterrupt:
        print("paretune: interrupted", file=sys.stderr)
        return 130


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
