"""``python -m tests.faults.driver FOLDER WORDS``: ``paretune WORDS`` over the closed form of ``FOLDER``."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from types import SimpleNamespace

from objectives.evaluation.problem import Problem
from search import cli
from search.config.study_config import StudyConfig
from search.executors import local, ray_cluster
from search.executors.place import Place
from search.study import lease
from tests.faults.closed_form import ClosedForm


def main() -> int:
    """Run the command with the problem replaced.

    In the environment ``LEASE``: seconds of a lease; ``PLACES``: how many devices this machine seems to have.
    """
    if "PLACES" in os.environ:
        ray_cluster.os = SimpleNamespace(
            **{**vars(os), "sched_getaffinity": lambda _: range(int(os.environ["PLACES"]))}
        )
        local.places_of = lambda *_: [Place()] * int(os.environ["PLACES"])  # type: ignore[assignment]
    lease.SECONDS = float(os.environ.get("LEASE", lease.SECONDS))
    folder, *words = sys.argv[1:]
    own = StudyConfig.problem.fget  # type: ignore[attr-defined]

    def problem(config: StudyConfig) -> Problem:
        given = {field.name: getattr(own(config), field.name) for field in fields(Problem)}
        return ClosedForm(**given, folder=folder)

    StudyConfig.problem = property(problem)  # type: ignore[assignment,method-assign]
    sys.argv[1:] = words
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
