"""torch.compile (Inductor): the packed model, compiled to C++ for the CPU, or to Triton for a GPU.

A decoder's cache has a fixed length then (transformers' StaticCache), that of the whole run. Sizes stay free, so one
compilation serves all batches. It takes minutes the first time; what was compiled is kept on disk.
"""

from __future__ import annotations

import os
import shutil
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.protocols.candidate import Runtime
from objectives.runtime.engine_support import embeds
from objectives.runtime.in_torch.base import InTorch
from objectives.runtime.packages import Packages
from objectives.settings import FORBID
from objectives.types import ENCODERS

if TYPE_CHECKING:
    from objectives.models import LoadedModel
    from objectives.protocols.candidate import Candidate, TorchBuildContext
    from objectives.protocols.running import Device, Runner
    from objectives.runtime.in_torch.static_cache import StaticCacheRunner
    from objectives.types import Head

VARIANTS = 4096
"""The most variants of one function that are compiled in one process."""
SAMPLE = (2, 12)
"""Rows and tokens of the sample that is compiled for; sizes stay free."""


@settings(frozen=True, kw_only=True, config=FORBID)
class TorchCompile(InTorch, Runtime):
    """Runs the packed model's passes compiled by Inductor.

    ``mode``: that of torch.compile; ``reduce-overhead`` records what was compiled as CUDA graphs, on a GPU: see
    :mod:`objectives.runtime.in_torch.captured`.
    """

    mode: Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs"] = "default"

    @property
    @override
    def name(self) -> str:
        return "torch_compile"

    @override
    def requirements(self) -> str | None:
        compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
        return None if compiler else "runtime=torch_compile needs a C++ compiler: install g++, or name one in CXX"

    @override
    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        if head == "seq2seq":
            return "takes decoders and encoders, not encoder-decoders"
        return embeds(candidate, device)

    @override
    def versions(self) -> dict[str, str]:
        """Return the version of torch, which brings the compiler."""
        return Packages("torch_compile", ("torch",)).versions()

    @override
    def prepare(self, context: TorchBuildContext) -> Runner:
        """Compile for a sample, so that no timed run has to, and return the runner."""
        import torch

        from objectives.runtime.engines.silence import silence

        began = perf_counter()
        with silence():
            import torch._dynamo.config as dynamo

            dynamo.recompile_limit = dynamo.accumulated_recompile_limit = VARIANTS  # every candidate is one more
            dynamo.fail_on_recompile_limit_hit = True  # otherwise it goes on in eager mode without a word
            runner = self._runner(context.model(), context.device)
        ids = torch.zeros(*SAMPLE, dtype=torch.int64, device=runner.device)
        with silence(), torch.inference_mode():
            if runner.head in ENCODERS:
                runner.encode(ids)
                runner.encode(ids, torch.ones_like(ids))
            else:
                runner.generate(ids, ids.new_empty(len(ids), 3))
                runner.logits(ids)
        runner.seconds = perf_counter() - began
        return runner

    def _runner(self, model: LoadedModel, device: Device) -> StaticCacheRunner:
        from objectives.packing.bf16 import in_rows
        from objectives.runtime.in_torch.captured import Captured
        from objectives.runtime.in_torch.compiled import compiled
        from objectives.runtime.in_torch.static_cache import StaticCacheRunner

        model = in_rows(model)
        if self.mode != "reduce-overhead" or not device.records_graphs:
            return StaticCacheRunner(model, compiled(model, self.mode))
        return Captured(model, compiled(model, "default")).check()  # Inductor's own graphs know one cache only
