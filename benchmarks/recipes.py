"""What benchmarks/compression.py measures: our recipes, the references beside them, and those of other libraries."""

from __future__ import annotations

from dataclasses import dataclass

import peers

from objectives.protocols.candidate import Pruner, Quantizer, Recovery
from objectives.pruning.criteria.activation import Activation
from objectives.pruning.criteria.magnitude import Magnitude
from objectives.pruning.criteria.obs import Obs
from objectives.pruning.depth import Depth
from objectives.pruning.sparsegpt import SparseGpt
from objectives.pruning.structured import Structured
from objectives.pruning.wanda import Wanda
from objectives.quantization.awq import Awq
from objectives.quantization.gptq import Gptq
from objectives.quantization.mixed import Mixed
from objectives.quantization.round_to_nearest import RoundToNearest
from objectives.recovery.distillation import Distillation
from objectives.recovery.off import Off


@dataclass(frozen=True)
class Cell:
    """A recipe; ``short``: part of ``--check``."""

    name: str
    pruner: Pruner | peers.Peer
    quantizer: Quantizer | peers.Peer
    short: bool = False
    recovery: Recovery = Off()  # noqa: RUF009 it has no fields


WHOLE, BF16 = Structured(), Gptq()
MINUTE = Distillation(seconds=60.0)
DEPTHS = (0.1, 0.2, 0.3, 0.4)  # whole blocks: 3, 6, 9 and 12 of 30
AGAIN = "moments again: prune"
MIN_MAX = RoundToNearest(bits=4, grid="min_max")


FFN = 0.75
"""Share of SmolLM2's block weights that is in FFNs: cutting a quarter of a block takes a third of its channels."""


def _reference(ratio: float) -> Structured:
    """Activation energy of FFN channels without reconstruction: what the goals are shares of."""
    return Structured(ffn_ratio=ratio / FFN, attention_ratio=0.0, criterion=Activation(), reconstruction="none")


DECODER = [
    Cell("dense", WHOLE, BF16, short=True),
    *(Cell(f"prune {ratio}, distilled", Structured(ratio=ratio), BF16, recovery=MINUTE) for ratio in (0.1, 0.25)),
    *(
        Cell(f"prune {ratio}", Structured(ratio=ratio), BF16, ratio in {0.05, 0.1, 0.25})
        for ratio in (0.05, *DEPTHS, 0.25, 0.5)
    ),
    *(Cell(f"depth {ratio}", Depth(ratio=ratio), BF16) for ratio in DEPTHS),
    Cell("prune 0.4, half of it as blocks", Structured(ratio=0.4, depth_share=0.5), BF16),
    Cell("OBS + least squares 0.25", Structured(ratio=0.25, criterion=Obs()), BF16),
    *(Cell(f"activation, cut only {ratio}", _reference(ratio), BF16, ratio == 0.25) for ratio in (0.1, 0.25)),
    Cell("activation + least squares 0.25", Structured(ratio=0.25, criterion=Activation()), BF16),
    Cell("magnitude 0.1", Structured(ratio=0.1, criterion=Magnitude(), reconstruction="none"), BF16),
    *(
        Cell(f"{name} {pattern}", mask(ratio=0.5, pattern=pattern), BF16)  # type: ignore[arg-type]
        for name, mask in (("Wanda", Wanda), ("SparseGPT", SparseGpt))
        for pattern in ("unstructured", "2:4")
    ),
    Cell("8 bit", WHOLE, Gptq(bits=8)),
    Cell("8 bit, weights alone", WHOLE, Gptq(bits=8, scheme="weight_only")),
    Cell("4 bit, min-max", WHOLE, MIN_MAX, short=True),
    Cell("4 bit, clipped", WHOLE, RoundToNearest(bits=4), short=True),
    Cell("4 bit, GPTQ", WHOLE, Gptq(bits=4), short=True),
    Cell("4 bit, AWQ", WHOLE, Awq(bits=4)),
    Cell("4 bit, GPTQ, embeddings in 8", WHOLE, Gptq(bits=4, embeddings=8)),
    Cell("3 bit, min-max", WHOLE, RoundToNearest(bits=3, grid="min_max", simulate=True)),
    Cell("3 bit, GPTQ", WHOLE, Gptq(bits=3, simulate=True)),
    Cell("mixed 5.0 (4, 8)", WHOLE, Mixed(bits=5.0)),
    Cell("mixed 3.5 (3, 4)", WHOLE, Mixed(bits=3.5, widths=(4, 3), simulate=True)),
    Cell("prune 0.25 in 64s", Structured(ratio=0.25, multiple_of=64), BF16, short=True),
    Cell("prune 0.25 in 64s, 4 bit GPTQ", Structured(ratio=0.25, multiple_of=64), Gptq(bits=4), short=True),
    Cell(f"{AGAIN} 0.25 in 64s, 4 bit GPTQ", Structured(ratio=0.25, multiple_of=64), Gptq(bits=4, recollect=2560)),
]
PEERS = [
    *(
        Cell(f"torch-pruning, magnitude {ratio}", peers.torch_pruning(ratio, "magnitude"), BF16)
        for ratio in (0.1, 0.25)
    ),
    *(Cell(f"torch-pruning, Taylor {ratio}", peers.torch_pruning(ratio, "taylor"), BF16) for ratio in (0.1, 0.25, 0.4)),
    Cell("4 bit, optimum-quanto", WHOLE, peers.layer_by_layer("optimum.quanto", peers.quanto)),
    Cell("4 bit, torchao", WHOLE, peers.layer_by_layer("torchao", peers.torchao(4))),
    Cell("3 bit, torchao", WHOLE, peers.layer_by_layer("torchao", peers.torchao(3))),
    Cell("4 bit, bitsandbytes NF4", WHOLE, peers.layer_by_layer("bitsandbytes", peers.bitsandbytes)),
    Cell("4 bit, NNCF with AWQ and scale estimation", WHOLE, peers.nncf(awq=True, scale_estimation=True)),
]
"""Measured with the first seed only, and only what is installed: pip install -c constraints.txt -e .[peers]"""
FAST = (
    "dense",
    *(f"{kind} {ratio}" for kind in ("prune", "depth") for ratio in DEPTHS),
    *("prune 0.5", "8 bit", "8 bit, weights alone", "4 bit, clipped"),
)
"""Whose speed is measured as well."""
ENCODER = [
    Cell("dense", WHOLE, BF16, short=True),
    Cell("prune 0.3", Structured(ratio=0.3), BF16, short=True),
    Cell("8 bit", WHOLE, Gptq(bits=8), short=True),
    Cell("4 bit, GPTQ", WHOLE, Gptq(bits=4), short=True),
    Cell("4 bit, clipped", WHOLE, RoundToNearest(bits=4)),
]
