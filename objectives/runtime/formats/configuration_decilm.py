"""Config of decoders of Llama type whose blocks differ: one part of ``block_configs`` for each block.

No release of transformers has this class, though engines know the model type. So a checkpoint of it carries this file,
and is opened with ``trust_remote_code``. Nothing here runs but the reading of a config.
"""

from typing import Any

from transformers import LlamaConfig


class Part(dict[str, Any]):
    """A part of a config whose fields are read as attributes."""

    def __getattr__(self, name: str) -> Any:
        """Return a field, a part again where it is a dictionary. Raises AttributeError where it is not there."""
        try:
            value = self[name]
        except KeyError as error:
            raise AttributeError(name) from error
        return Part(value) if isinstance(value, dict) else value


class DeciLMConfig(LlamaConfig):  # type: ignore[no-untyped-call]
    """The config of a Llama with ``block_configs``: ``attention`` and ``ffn`` of every block."""

    model_type = "nemotron-nas"

    def __init__(self, block_configs: list[dict[str, Any]] | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        self.block_configs = [Part(block) for block in block_configs or []]
