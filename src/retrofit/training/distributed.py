"""Several processes that train one model: every step is theirs together, and ends as if one process had made it.

A step has a loss L of the embeddings e of all its texts. Of W processes, process r embeds the texts r, r + W, … of the
step, so it knows how its own embeddings change with the weights, J_r = ∂e_r/∂θ, and takes the embeddings of the others
as they are. Then every process computes the same L and the same ∂L/∂e. The gradient that one process would have is the
sum over the shares, Σ_r J_rᵀ ∂L/∂e_r. What Lightning's strategies make of the processes' gradients g_r is their mean,
(1/W) Σ_r g_r (DDP: Li et al. 2020, section 3.2; FSDP: Zhao et al. 2023, section 3). So each share counts W times,
g_r = W · J_rᵀ ∂L/∂e_r, and the mean is the sum. A weight of the loss itself, such as a temperature, has the same
gradient in every process, which is its own mean: it does not pass through a share, and nothing is to be done.

The factor is exact for any loss of the embeddings, and what goes back through the network is the gradient of one's own
share: no second exchange of embeddings in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional


def world_size() -> int:
    """Return the number of processes that train together; 1 where no process group was set up."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def gathered(share: Tensor, total: int) -> Tensor:
    """Return the embeddings of all processes in the order of the texts, ``[total, dimension]``.

    Args:
        share: those of this process, ``[texts, dimension]``: of texts r, r + W, … for rank r of W; may have no row. Its
            gradient counts W times, that of the others' embeddings not at all.
        total: number of texts over all processes.
    """
    processes = world_size()
    if processes == 1:
        return share
    rows = -(-total // processes)
    padded = functional.pad(share, (0, 0, 0, rows - len(share)))
    shares = [torch.empty_like(padded) for _ in range(processes)]
    distributed.all_gather(shares, padded.detach().contiguous())
    shares[distributed.get_rank()] = padded.detach() + _gradient_for_all(padded)
    return torch.stack(shares, dim=1).flatten(0, 1)[:total]


def summed(own: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; the gradient of this process's part counts W times."""
    if world_size() == 1:
        return own
    total = own.detach().clone()
    distributed.all_reduce(total)
    return total + _gradient_for_all(own)


def largest(number: int, device: torch.device) -> int:
    """Return the largest of a whole number over all processes."""
    if world_size() == 1:
        return number
    numbers = torch.tensor(number, device=device)
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
    return int(numbers)


def shard(model: nn.Module, layers: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Split weights over processes, in place (FSDP): each holds a part, and gathers a layer's when it needs them.

    Args:
        model: what is called as a whole in a step; its parameters are not scalars.
        layers: parts of it whose weights are gathered together.
        mesh: one dimension of processes.
    """
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the whole weights that learn, on the CPU, in the first process; all processes of sharded weights call it.

    In the others what is returned may be empty.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    weights: dict[str, Any] = get_model_state_dict(model, options=options)
    return weights


def load_trained(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what :func:`trained_weights` returned in the first process into an unsharded model.

    Args:
        model: the same as the one that was trained; its frozen weights stay.
        weights: by name.

    Raises:
        RuntimeError: they are not those of the weights that learn, or of another shape.
    """
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    if other := weights.keys() ^ (model.state_dict().keys() - frozen):
        raise RuntimeError(f"trained weights are missing, or are not the model's: {', '.join(sorted(other)[:5])}")
    model.load_state_dict(weights, strict=False)


def leave() -> None:
    """Take leave of the other processes, whatever they do from here on."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _gradient_for_all(own: Tensor) -> Tensor:
    """Return zeros whose gradient is that of a tensor times the number of processes."""
    return world_size() * (own - own.detach())
