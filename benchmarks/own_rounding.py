"""4 bits as a runtime rounds them by itself, to see what our codes are worth."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from objectives.runtime.engines.folder import write_facts
from objectives.runtime.engines.runner import EngineRunner
from objectives.runtime.engines.silence import silence

GROUP = 64


def own_rounding(dense: EngineRunner, folder: Path) -> EngineRunner:
    """``dense``, an fp32 decoder, with its layers in 4 bits by the runtime's own tool; written to ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if "OpenVino" in dense.facts.runtime:
        _nncf(dense.folder, folder)
        facts = replace(dense.facts, options={"wide": False, "rounds": True})
    else:
        _matmul_nbits(dense.folder, folder)
        facts = dense.facts
    write_facts(folder, facts)
    return EngineRunner.open(folder, dense.tokenizer, dense.threads)


def _nncf(source: Path, folder: Path) -> None:
    with silence():
        import nncf
        import openvino as ov
        from nncf.quantization.advanced_parameters import AdvancedCompressionParameters, GroupSizeFallbackMode

        advanced = AdvancedCompressionParameters(group_size_fallback_mode=GroupSizeFallbackMode.ADJUST)
        graph = nncf.compress_weights(
            ov.Core().read_model(source / "model.xml"), mode=nncf.CompressWeightsMode.INT4_ASYM, group_size=GROUP,
            advanced_parameters=advanced,
        )  # fmt: skip
        ov.save_model(graph, folder / "model.xml", compress_to_fp16=False)


def _matmul_nbits(source: Path, folder: Path) -> None:
    with silence():
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        plain = folder / "plain"  # onnx takes no data that has several links, as the cache's have
        shutil.copytree(source, plain)
        graph = onnx.load(plain / "model.onnx")
        heads = [node.name for node in graph.graph.node if node.op_type == "MatMul" and "logits" in node.output]
        worker = MatMulNBitsQuantizer(
            graph, bits=4, block_size=GROUP, is_symmetric=False, accuracy_level=4, nodes_to_exclude=heads
        )
        worker.process()
        worker.model.save_model_to_file(str(folder / "model.onnx"), True)
        shutil.rmtree(plain)
