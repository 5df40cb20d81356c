"""Weighs a model: counts every byte that its weights occupy in memory, whatever tensor class holds them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from objectives.models import LoadedModel


def stored_bytes(modules: Iterable[nn.Module]) -> int:
    """Count the bytes of all parameters and buffers; a tensor that several modules share counts once.

    Subclass tensors (torchao) report the dtype they imitate, so their inner tensors are counted instead. Bytes that a
    kernel keeps outside of tensors are added (``hidden_bytes`` of a packed linear).
    """
    seen: dict[int, int] = {}
    for module in modules:
        for part in module.modules():
            seen[id(part)] = getattr(part, "hidden_bytes", 0)
        for tensor in [*module.parameters(), *module.buffers()]:
            for plain in _plain(tensor.data if isinstance(tensor, nn.Parameter) else tensor):
                storage = plain.untyped_storage()
                seen[storage._cdata] = storage.nbytes()
    return sum(seen.values())


def _plain(tensor: Tensor) -> list[Tensor]:
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return [plain for name in names for plain in _plain(getattr(tensor, name))]
    return [tensor]


def copied_bytes(module: nn.Module) -> int:
    """Return the bytes of a weight that ``module`` holds a second time, in 16 bits; 0 where it holds none."""
    copied = getattr(module, "copied_weight", None)
    return 0 if copied is None else int(copied.nbytes)


def block_weights(model: LoadedModel) -> int:
    """Count the weights of the block linears; biases and norms are left out."""
    return sum(block.parameters for block in model.blocks())


def weigh(model: LoadedModel, dense_weights: int) -> dict[str, float]:
    """Measure the bytes of a compressed model, by metric; ``dense_weights``: :func:`block_weights` before pruning.

    ``effective_bits`` are per weight of the block linears; biases, and weights that are held twice, are left out.
    """
    blocks = list(model.blocks())
    weights = block_weights(model)
    linears = [block.linear(path) for block in blocks for path in block.stack.block_linears]
    others = sum(stored_bytes([_Holder(linear.bias)]) for linear in linears if linear.bias is not None)
    others += sum(copied_bytes(linear) for linear in linears)
    return {
        "weight_bytes": float(stored_bytes([model.module])),
        "block_bytes": float(stored_bytes(block.module for block in blocks)),
        "effective_bits": 8.0 * (stored_bytes(linears) - others) / weights,
        "pruning_ratio": 1.0 - weights / dense_weights,
    }


class _Holder(nn.Module):
    """A module around one tensor, so that it is counted like any other."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.register_buffer("tensor", tensor)


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return all persistent tensors by name; one that several modules share comes once."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() not in seen:
            tensors[name] = tensor
            seen.add(tensor.data_ptr())
    return tensors


def disk_bytes(model: LoadedModel) -> int:
    """Return the bytes of the tensors that a checkpoint of ``model`` holds; no two layers are unpacked at a time."""
    shared: dict[int, int] = {}
    made = 0
    for part in model.module.modules():
        held: dict[str, Tensor] = {}
        part._save_to_state_dict(held, "", keep_vars=False)
        own = {tensor.data_ptr() for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False))}
        shared |= {tensor.data_ptr(): tensor.nbytes for tensor in held.values() if tensor.data_ptr() in own}
        made += sum(tensor.nbytes for tensor in held.values() if tensor.data_ptr() not in own)
    return sum(shared.values()) + made
