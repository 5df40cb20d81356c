"""What settings say of their strength is read from every kind of class, and old names count where nothing is said."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
import pytest
from omegaconf import OmegaConf

from objectives.settings import FORBID, UNDECLARED, Ratio, Strength, asks_to_prune, strengths_of
from search.commands.run import CONF
from search.space.instantiate import build, target_of

if TYPE_CHECKING:
    from torch import Tensor

PRUNES = Strength(neutral=0.0, harder=+1)
Kept = Annotated[float, Strength(neutral=1.0, harder=-1)]


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=FORBID)
class Checked:
    sparsity: Annotated[Ratio, Strength(neutral=0.0, harder=+1)] = 0.3
    heads: Annotated[Ratio, Strength(neutral=0.0, harder=+1)] | None = None
    ratio: float = 2.0  # of something else: its class says what its strengths are


@dataclasses.dataclass(frozen=True)
class Plain:
    kept: Kept = 1.0
    scores: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Further(Plain):
    kept: float = 0.5  # redefined, and still how strongly it prunes
    more: Annotated[int, PRUNES] = 0


class Written:
    def __init__(self, sparsity: Annotated[float, PRUNES] = 0.0) -> None:
        self.sparsity = sparsity


def made(share: Annotated[float, PRUNES]) -> Checked:
    return Checked(sparsity=share)


@dataclasses.dataclass(frozen=True)
class Silent:
    ratio: float = 0.0
    seed: int = 0
    bits: int = 4


@dataclasses.dataclass(frozen=True)
class Unreadable:
    sparsity: Annotated[Missing, Strength(neutral=0.0, harder=+1)] = 0.0  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("target", "strengths"),
    [
        (Checked, {"sparsity": PRUNES, "heads": PRUNES}),
        (Plain, {"kept": Strength(neutral=1.0, harder=-1)}),
        (Further, {"kept": Strength(neutral=1.0, harder=-1), "more": PRUNES}),
        (Written, {"sparsity": PRUNES}),
        (made, {"share": PRUNES}),
        (Silent, {"ratio": PRUNES}),
        (lambda **settings: settings, UNDECLARED["pruning"]),
        (int, {}),
        (object, {}),
    ],
)
def test_a_class_or_function_says_its_strengths(target: Any, strengths: dict[str, Strength]) -> None:
    assert strengths_of(target, "pruning") == strengths


def test_undeclared_names_count_in_their_own_part_only() -> None:
    assert strengths_of(Silent, "quantization") == {"bits": Strength(neutral=16, harder=-1, uneven=True)}
    assert strengths_of(Silent, "recovery") == {}


def test_a_strength_that_cannot_be_read_is_an_error_and_not_a_silence() -> None:
    with pytest.raises(TypeError, match=r"Unreadable.sparsity: the annotation 'Annotated\[Missing, .* cannot be read"):
        strengths_of(Unreadable, "pruning")


def test_a_direction_is_up_or_down() -> None:
    with pytest.raises(ValueError, match=r"Strength.harder: 1 or -1 expected, got 0"):
        Strength(neutral=0.0, harder=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pruner", "asks"),
    [
        (Checked(), True),
        (Checked(sparsity=0.0), False),
        (Checked(sparsity=0.0, heads=0.1), True),
        (Plain(), False),
        (Further(), True),
        (Silent(), False),
        (Silent(ratio=0.1), True),
        (object(), False),
    ],
)
def test_a_pruner_asks_to_prune_where_a_strength_is_set(pruner: Any, asks: bool) -> None:
    assert asks_to_prune(pruner) == asks


Part = Literal["pruning", "quantization", "recovery"]
OURS = [(file.parent.name, file.stem) for part in UNDECLARED for file in sorted((CONF / part).glob("*.yaml"))]


@pytest.mark.parametrize(("part", "name"), OURS)
def test_every_class_of_ours_declares_what_its_names_meant(part: Part, name: str) -> None:
    node = OmegaConf.to_container(OmegaConf.load(CONF / part / f"{name}.yaml"))
    target = target_of(node, part)
    meant = {field: each for field, each in UNDECLARED[part].items() if field in target.__dataclass_fields__}
    assert strengths_of(target, part) == meant
    assert not (part == "pruning" and asks_to_prune(build(node, part)))
