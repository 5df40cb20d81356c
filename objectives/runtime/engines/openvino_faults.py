"""Changes graphs so that they do not meet the faults of OpenVINO's CPU plug-in.

**A gated FFN on one thread.** Where the CPU has AMX and computes in 16 bits, the plug-in fuses the three products of a
gated FFN (SiLU or GELU of one times another, into a third; both widths multiples of 32) into one node, LLMMLP. Its last
product is shared out by pairs of threads, so with one thread the plug-in divides by zero when it compiles the graph,
and the process ends with SIGFPE. Seen in 2024.6 and 2026.4.1, in 16 bits and, where one scale serves all inputs of a
layer, in 8: https://github.com/openvinotoolkit/openvino/issues/33300. A process that may use one CPU only has one
thread, however many are asked for.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

GATES = ("Swish", "Gelu")
"""Types of the nodes that open a gated FFN's gate."""


def usable_threads(threads: int) -> int:
    """Return how many of ``threads`` the plug-in uses: no more than there are CPUs for this process."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(threads, allowed)


def keep_gates_apart(graph: Any) -> int:
    """Change ``graph`` (``openvino.Model``) so that no gated FFN is fused, and return how many gated FFNs it has.

    The gate's output goes through a PReLU of slope 1. Every value stays what it is, NaN included, and the plug-in
    computes the PReLU in the same loop as the product before it.
    """
    from openvino import opset13

    count = 0
    for node in graph.get_ordered_ops():
        gated = node.input_value(0) if node.get_type_name() == "MatMul" else None
        if gated is None or not _leaves_a_gate(gated.get_node()):
            continue
        same = opset13.prelu(gated, opset13.constant(np.ones(1, np.float32)))
        node.input(0).replace_source_output(same.output(0))
        count += 1
    return count


def _leaves_a_gate(node: Any) -> bool:
    factors = node.input_values() if node.get_type_name() == "Multiply" else ()
    return any(factor.get_node().get_type_name() in GATES for factor in factors)
