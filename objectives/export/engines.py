"""The table of which stock engine loads which shapes and bits of a compressed model, and how one is asked here.

The table says what was run, and what is only read in an engine's code or documentation. Importing it is free of torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from objectives.assets import AssetError, ready
from objectives.assets.environment import interpreter
from objectives.errors import Unsupported
from objectives.runtime import vllm


class Layout(StrEnum):
    """The shapes of the blocks of a pruned model: all alike; alike but for FFN widths; or free."""

    UNIFORM = "uniform"
    DECI = "deci"
    FREE = "free"


@dataclass(frozen=True)
class Loads:
    """One row of the table.

    ``engine`` loads models of ``layouts`` in ``bits`` from the export's ``format``; missing blocks are nothing to it.
    ``known``: ``run`` here, or ``read`` in its code or documentation.
    """

    engine: str
    format: str
    layouts: tuple[Layout, ...]
    bits: tuple[int, ...]
    known: str
    but: str = ""

    @property
    def line(self) -> str:
        """Return the row as a line for people."""
        layouts, bits = "|".join(self.layouts), "|".join(map(str, self.bits))
        return (
            f"{self.engine}: format={self.format}, {layouts}, {bits} bits ({self.known}){self.but and f'; {self.but}'}"
        )


_UNIFORM = (Layout.UNIFORM,)
_ALL = (Layout.UNIFORM, Layout.DECI, Layout.FREE)
TABLE: tuple[Loads, ...] = (
    Loads("transformers", "hf", _UNIFORM, (16,), "run"),
    Loads("vLLM", "hf", _UNIFORM, (16,), "run"),
    Loads("vLLM", "hf", (Layout.DECI,), (16,), "run", "as DeciLM, with --trust-remote-code"),
    Loads("vLLM", "compressed-tensors", _UNIFORM, (8, 4), "run", "8 bits round activations: scheme=w8a8"),
    Loads("vLLM", "gptq", _UNIFORM, (4,), "run", "without zeros: zero=middle"),
    Loads("llama.cpp", "gguf", _ALL, (16, 8, 4), "run", "4 and 8 bits round activations too"),
    Loads("SGLang", "hf", _UNIFORM, (16,), "read"),
    Loads("SGLang", "compressed-tensors", _UNIFORM, (8, 4), "read"),
    Loads("SGLang", "gptq", _UNIFORM, (4,), "read"),
    Loads("SGLang", "hf", (Layout.DECI,), (16,), "read", "FFN widths in multiples of 256"),
    Loads("TensorRT-LLM", "hf", (Layout.DECI,), (16,), "read", "FFN widths in multiples of 256"),
)


def loading(layout: Layout, bits: Iterable[int] = (), format: str | None = None) -> list[Loads]:
    """Return the rows of engines that load models of ``layout``, in all of ``bits``, from ``format`` where given."""
    return [
        row
        for row in TABLE
        if layout in row.layouts and {*bits} <= {*row.bits} and format in (None, row.format)
    ]  # fmt: skip


def loaded_by(layout: Layout) -> str:
    """Say in a line which stock engines load models of ``layout``, from which formats."""
    rows = loading(layout)
    told = {
        known: ", ".join(f"{row.engine} ({row.format})" for row in rows if row.known == known)
        for known in ("run", "read")
    }
    unseen = f"; by their code, not tried: {told['read']}" if told["read"] else ""
    others = [engine for engine in dict.fromkeys(row.engine for row in TABLE) if engine not in {r.engine for r in rows}]
    refused = f"; not by {', '.join(others)}" if others else ""
    return f"loaded by {told['run']}{unseen}{refused}"


@dataclass(frozen=True)
class Loader:
    """A stock engine that an export asks: ``script`` in :mod:`.loaders`, run by what ``python`` finds.

    ``install``: how one gets what ``python`` did not find; ``exact``: variables by which the engine rounds less than it
    does by itself; ``key_values``: the words by which it keeps keys and values in fewer bits than 16, by their number.
    """

    engine: str
    script: str
    python: Callable[[], Path | None]
    install: str
    exact: Mapping[str, str] = field(default_factory=dict)
    key_values: Mapping[int, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Return the script."""
        return Path(__file__).with_name("loaders") / self.script


def _here(package: str) -> Callable[[], Path | None]:
    """Return what finds this interpreter, where it has ``package``."""
    return lambda: Path(sys.executable) if find_spec(package) else None


def _of_vllm() -> Path | None:
    """Return the interpreter that the environment variable names, else that of the fetched environment.

    Raises Unsupported where the variable names none.
    """
    named = os.environ.get(vllm.OWN)
    if named:
        if not Path(named).is_file():
            raise Unsupported(f"{vllm.OWN}: {named} is no file; unset it for the environment that paretune fetched")
        return Path(named)
    try:
        folder = ready(vllm.ASSET)
    except AssetError:
        return None
    return None if folder is None else interpreter(folder)


TRANSFORMERS = Loader("transformers", "with_transformers.py", _here("transformers"), "pip install transformers")
VLLM = Loader(
    "vLLM", "with_vllm.py", _of_vllm, f"paretune fetch {vllm.ASSET}, or {vllm.OWN}=<its interpreter>",
    exact={vllm.W4A8: "0"}, key_values={8: "--kv-cache-dtype fp8"},
)  # fmt: skip
XLLAMACPP = Loader(
    "llama.cpp", "with_xllamacpp.py", _here("xllamacpp"), "pip install xllamacpp",
    key_values={bits: f"--cache-type-k q{bits}_0 --cache-type-v q{bits}_0" for bits in (8, 4)},
)  # fmt: skip
