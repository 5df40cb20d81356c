"""The storage of the one driver that may write: what it wrote about its running trials it need not read.

Optuna reads a running trial four times on its way from question to answer, since another process might have written
about it. Here none may (:mod:`search.study.lease`), and each reading is a seventh of what a trial costs the driver.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from search.study.patient_storage import PatientStorage


class WriterStorage(PatientStorage):
    """A storage that remembers the running trials which it made; all others are read."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._running: dict[int, FrozenTrial] = {}

    @override
    def get_trial(self, trial_id: int) -> FrozenTrial:
        running = self._running.get(trial_id)
        return super().get_trial(trial_id) if running is None else _copy(running)

    @override
    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        made = super()._create_new_trial(study_id, template_trial)
        if made.state is TrialState.RUNNING:
            self._running[made._trial_id] = _copy(made)
        return made

    @override
    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        self._running.pop(trial_id, None)
        is_set = super().set_trial_state_values(trial_id, state, values)
        if state is TrialState.RUNNING and is_set:
            self._running[trial_id] = super().get_trial(trial_id)
        return is_set

    @override
    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        super()._set_trial_param(trial_id, param_name, param_value_internal, distribution, previous_distribution)
        if (running := self._running.get(trial_id)) is not None:
            running.params[param_name] = distribution.to_external_repr(param_value_internal)
            running.distributions[param_name] = distribution

    @override
    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        if (running := self._running.get(trial_id)) is not None:
            running.system_attrs[key] = _as_read(value)

    @override
    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.set_trial_user_attrs(trial_id, {key: value})

    @override
    def set_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        super().set_trial_user_attrs(trial_id, attributes)
        if (running := self._running.get(trial_id)) is not None:
            running.user_attrs.update(_as_read(dict(attributes)))

    @override
    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        if (running := self._running.get(trial_id)) is not None:
            running.intermediate_values[step] = intermediate_value


def _copy(trial: FrozenTrial) -> FrozenTrial:
    """Copy a trial so far that what Optuna puts into one reaches no other."""
    return FrozenTrial(
        trial_id=trial._trial_id,
        number=trial.number,
        state=trial.state,
        value=None,
        values=trial.values,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=dict(trial.params),
        distributions=dict(trial.distributions),
        user_attrs=dict(trial.user_attrs),
        system_attrs=dict(trial.system_attrs),
        intermediate_values=dict(trial.intermediate_values),
    )


def _as_read(value: Any) -> Any:
    """Return ``value`` as the store gives it back."""
    return json.loads(json.dumps(value))
