"""What the writer's storage remembers of a running trial is what anybody else reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState

from search.study.patient_storage import PatientStorage
from search.study.writer_storage import WriterStorage

WRITES: dict[str, Callable[[Trial], object]] = {
    "nothing": lambda trial: None,
    "an integer": lambda trial: trial.suggest_int("bits", 0, 2),
    "a float": lambda trial: trial.suggest_float("ratio", 0.0, 1.0),
    "a choice": lambda trial: trial.suggest_categorical("kind", ["a", None, 0.5]),
    "a user's attribute": lambda trial: trial.set_user_attr("record", {"values": (1, 2), 3: None}),
    "a constraint": lambda trial: trial.set_constraint("accuracy", -0.1),
    "a value on the way": lambda trial: trial.report(0.5, 3),
}


@pytest.fixture
def storage(tmp_path: Path) -> WriterStorage:
    return WriterStorage(f"sqlite:///{tmp_path}/studies.db")


def is_remembered(storage: WriterStorage, trial_id: int) -> bool:
    return storage.get_trial(trial_id) == RDBStorage.get_trial(storage, trial_id)


@pytest.mark.filterwarnings("ignore:.*is ignored because")  # Optuna's, of what is there already
@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("is_enqueued", [False, True])
def test_a_running_trial_is_remembered_as_others_read_it(storage: WriterStorage, name: str, is_enqueued: bool) -> None:
    study = optuna.create_study(storage=storage)
    if is_enqueued:
        study.enqueue_trial({"bits": 1, "ratio": 0.5}, user_attrs={"of": "a user"})
    trial = study.ask()
    for _ in range(2):  # again, over what is there
        WRITES[name](trial)
        assert is_remembered(storage, trial._trial_id)
    study.tell(trial, 1.0)
    assert storage.get_trial(trial._trial_id).state is TrialState.COMPLETE
    assert is_remembered(storage, trial._trial_id)


def test_several_attributes_are_remembered_as_others_read_them(storage: WriterStorage) -> None:
    trial = optuna.create_study(storage=storage).ask()
    storage.set_trial_user_attrs(trial._trial_id, {"record": {"front": (1, 2)}, "samples": [0.1]})
    assert storage.get_trial(trial._trial_id).user_attrs["record"] == {"front": [1, 2]}
    assert is_remembered(storage, trial._trial_id)


def test_what_a_reader_does_to_a_trial_is_not_remembered(storage: WriterStorage) -> None:
    trial = optuna.create_study(storage=storage).ask()
    read = storage.get_trial(trial._trial_id)
    read.params["bits"] = read.system_attrs["fixed"] = read.user_attrs["record"] = 1
    assert is_remembered(storage, trial._trial_id)


@pytest.mark.parametrize("fails", ["set_trial_user_attr", "set_trial_system_attr", "set_trial_state_values"])
def test_what_could_not_be_written_is_not_remembered(
    storage: WriterStorage, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    trial = optuna.create_study(storage=storage).ask()

    def raising(*_: object) -> None:
        raise RuntimeError

    for name in (fails, "set_trial_user_attrs"):
        monkeypatch.setattr(PatientStorage, name, raising)
    arguments = (TrialState.FAIL,) if fails == "set_trial_state_values" else ("at", 1)
    with pytest.raises(RuntimeError):
        getattr(storage, fails)(trial._trial_id, *arguments)
    assert is_remembered(storage, trial._trial_id)


def test_the_trial_of_another_driver_is_read(storage: WriterStorage) -> None:
    study = optuna.create_study(study_name="both", storage=storage)
    other = optuna.load_study(study_name="both", storage=PatientStorage(str(storage.url))).ask()
    storage.get_trial(other._trial_id)
    other.set_user_attr("at", 1)
    assert study._storage.get_trial(other._trial_id).user_attrs == {"at": 1}


def test_a_trial_costs_few_readings(storage: WriterStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The running trial is read once, by Optuna's answer to ``tell``."""
    read: list[int] = []
    real = RDBStorage.get_trial
    monkeypatch.setattr(RDBStorage, "get_trial", lambda self, trial_id: read.append(trial_id) or real(self, trial_id))
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    trial.suggest_int("bits", 0, 2)
    trial.set_constraint("accuracy", -1.0)
    study.tell(trial, 1.0)
    assert len(read) <= 1
