"""A server that runs already, and speaks as OpenAI's does: its speed under load is measured as it is.

It has one model, which cannot be compressed from here, so only the load can vary. Accuracy is that of ``model.path``,
which has to be the folder that the server was given. The server is on this machine: requests go nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as settings
from typing_extensions import override

from objectives.protocols.candidate import Runtime
from objectives.protocols.optional import Unkept
from objectives.protocols.serving import Hosting, Loading
from objectives.runtime.servers.http import require_loopback
from objectives.settings import FORBID, Name, asks_to_prune

if TYPE_CHECKING:
    from objectives.protocols.candidate import Candidate, Quantizer, TorchBuildContext
    from objectives.protocols.running import Device, Runner
    from objectives.types import Head


@settings(frozen=True, kw_only=True, config=FORBID)
class OpenAIServer(Runtime, Hosting, Unkept):
    """Sends the requests of a load to ``url``.

    ``model``: the name that requests carry; None: the first that the server tells. Raises ValueError for a URL that is
    not on loopback.
    """

    url: Name = "http://127.0.0.1:8000"
    model: Name | None = None

    def __post_init__(self) -> None:
        """Refuse every other machine."""
        require_loopback(self.url)

    @property
    @override
    def name(self) -> str:
        return "openai_server"

    @property
    @override
    def is_torch(self) -> bool:
        """Return False: what runs is a server of somebody else's."""
        return False

    @override
    def requirements(self) -> str | None:
        return None

    @override
    def supports(self, candidate: Candidate, head: Head, device: Device) -> str | None:
        if head != "causal_lm":
            return "takes decoders"
        if not isinstance(candidate.workload, Loading):
            return "answers to a load only: workload=serving"
        quantizer = candidate.quantization
        if asks_to_prune(candidate.pruning) or quantizer.stored != {16}:
            return "its model stays as it is: space.pruning.ratio=[0.0], space.quantization.bits=[16]"
        if quantizer.embeddings != 16 or candidate.recovery.trains:
            return "its model stays as it is: quantization.embeddings=16, recovery=none"
        return None

    @override
    def storage(self, quantizer: Quantizer) -> Quantizer:
        return quantizer

    @override
    def versions(self) -> dict[str, str]:
        return {}

    @override
    def unserved(self) -> str | None:
        return None

    @override
    def unkept(self) -> str:
        return "the server may be another one next time"

    @override
    def prepare(self, context: TorchBuildContext) -> Runner:
        from objectives.runtime.servers.elsewhere import ServedElsewhere

        return ServedElsewhere(context.model(), require_loopback(self.url), self.model)
