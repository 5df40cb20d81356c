"""A load needs a runtime that serves: the baseline is of one, and all others leave the space with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from objectives.runtime.llama_cpp import OWN
from search.config.study_config import StudyConfig, build_config
from search.errors import ConfigError
from tests.search.conftest import composed

LOAD = ("workload=serving", "device=cpu", "space.pruning.ratio=[0.0]", "space.workload.concurrency=[1,2]")


def config(*words: str) -> StudyConfig:
    return build_config(composed(*LOAD, *words))


def test_the_baseline_of_a_load_is_the_dense_model_in_the_runtime_that_serves() -> None:
    baseline = config("runtime=llama_cpp").space.baseline_candidate()
    assert baseline.runtime.name == "llama_cpp"
    assert baseline.quantization.bits == 16
    assert baseline.workload.batch_size == 1


def test_of_several_runtimes_the_first_that_serves_is_the_baselines() -> None:
    space = config("space.runtime.name=[torch,llama_cpp]").space
    assert space.baseline()["runtime"] == "llama_cpp"
    assert len(space.outside) == len(space) // 2
    (reason,) = set(space.outside.values())
    assert reason == f"torch: has no server: workload=serving needs runtime={' or '.join(space.serving)}"
    assert {"llama_cpp", "vllm", "openai_server"} <= set(space.serving)


def test_a_load_on_a_runtime_without_a_server_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="torch: has no server: workload=serving needs runtime=llama_cpp"):
        config()
    monkeypatch.setenv(OWN, str(tmp_path))
    with pytest.raises(ConfigError, match=r"only the wheel's build has a server.*got own"):
        config("runtime=llama_cpp", "runtime.library=own")


def test_the_baseline_of_every_other_workload_is_torchs() -> None:
    space = build_config(composed("device=cpu", "runtime=llama_cpp", "space.pruning.ratio=[0.0]")).space
    assert space.baseline()["runtime"] == "torch"


def test_a_foreign_server_takes_a_load_alone_and_its_model_as_it_is() -> None:
    space = config("runtime=openai_server", "space.quantization.bits=[16,8]").space
    assert set(space.outside.values()) == {
        "openai_server: its model stays as it is: space.pruning.ratio=[0.0], space.quantization.bits=[16]"
    }
    with pytest.raises(ConfigError, match="answers to a load only: workload=serving"):
        build_config(composed("device=cpu", "runtime=openai_server", "space.pruning.ratio=[0.0]"))


@pytest.mark.parametrize("url", ["http://192.168.0.2:8000", "http://127.0.0.1", "https://localhost:8000"])
def test_a_foreign_server_is_on_this_machine(url: str) -> None:
    with pytest.raises(ConfigError, match=r"runtime: url must be http://127\.0\.0\.1:PORT"):
        config("runtime=openai_server", f"runtime.url={url}")
