"""Fully sharded data parallel: each process keeps a part of the weights, their average and the optimizer's state.

torch's `fully_shard` (FSDP2), which leaves the model what it is: MMEngine's own strategy is of FSDP1, wants CUDA, its
FlexibleRunner instead of the Runner, and cannot average weights.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import NoReturn

import torch
from mmengine.device import get_device
from mmengine.dist import broadcast, get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from tokenlabel.engine.classifier import TokenLabelClassifier
from tokenlabel.errors import UserError


def shard(model: nn.Module, kind: str) -> nn.Module:
    """Shards the network of a classifier in place, block by block; all processes start from the weights of the first.

    Parameters become DTensors, each process holding its rows. A deep copy is a plain network of copied shards, which
    can be averaged but not run. Weights are loaded from whole tensors, as any checkpoint has them, and within
    `whole_state_dicts` they are saved so.

    Args:
        model: a `TokenLabelClassifier`.
        kind: the config's `sharding`: 'fsdp'.

    Raises:
        UserError: another kind, or another model.
    """
    if kind != 'fsdp':
        raise UserError(f'The config sets sharding={kind}: set `fsdp`, or leave it out.')
    if not isinstance(model, TokenLabelClassifier):
        raise UserError('sharding=fsdp is for pretraining (TokenLabelClassifier): leave it out.')
    if model._compiled:
        print_log(
            'A sharded network is gathered block by block, not in one compiled graph: it trains as it is.', 'current'
        )
        model._compiled = None
    network = model.model
    for tensor in network.state_dict().values():
        broadcast(tensor)
    network.to(memory_format=torch.contiguous_format)  # fully_shard takes no other
    network.register_state_dict_post_hook(_gather_weights)
    network.register_load_state_dict_pre_hook(_shard_weights)
    blueprint = copy.deepcopy(network).to('meta')
    mesh = init_device_mesh(get_device(), (get_world_size(),))
    # resharded after every forward pass, so that between passes the parameters are always the shards
    for module in (*repeated_blocks(network), network):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        type(module).__deepcopy__ = _refuse_copy
    network._blueprint = (blueprint,)  # in a tuple it is no part of the network
    type(network).__deepcopy__ = _copy_of_shards
    return model.to(get_device())


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """Modules that are gathered one at a time: those that follow their like in an `nn.Sequential`, inner ones first."""
    blocks = []
    for module in network.modules():
        children = list(module) if isinstance(module, nn.Sequential) else []
        if len(children) > 1 and len({type(child) for child in children}) == 1 and list(module.parameters()):
            blocks += children
    return blocks[::-1]


def shard_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Lets the optimizer of a sharded network save whole states within `whole_state_dicts`, and load such."""
    if any(isinstance(parameter, DTensor) for parameter in _parameters(optimizer)):
        optimizer.register_state_dict_post_hook(_gather_state)
        optimizer.register_load_state_dict_pre_hook(_shard_state)


def is_sharded(model: nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules())


@contextmanager
def whole_state_dicts() -> Iterator[None]:
    """Within it, state dicts of what is sharded hold whole tensors in process 0; all processes have to make them."""
    global _gathering
    _gathering = True
    try:
        yield
    finally:
        _gathering = False


def take_part_in_saving(runner: Runner, save_optimizer: bool = True) -> None:
    """Makes the state dicts that process 0 makes in `Runner.save_checkpoint`, in the same order."""
    checkpoint = {'state_dict': runner.model.state_dict()}
    if save_optimizer:
        checkpoint['optimizer'] = runner.optim_wrapper.state_dict()
    runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)


_gathering = False


def _gathered(value: object) -> object:
    """A sharded tensor as a whole one on the CPU of process 0; the others give their part and keep what they have."""
    if not isinstance(value, DTensor) or not _gathering:
        return value
    whole = value.full_tensor()
    return whole.cpu() if get_rank() == 0 else value


def _sharded(value: object, parameter: Tensor) -> object:
    """A whole tensor of a parameter's shape, which every process has read, as this process's rows of it."""
    if not isinstance(value, Tensor) or isinstance(value, DTensor) or value.shape != parameter.shape:
        return value
    if not isinstance(parameter, DTensor):
        return value
    mesh = parameter.device_mesh
    parts = value.to(parameter.device).chunk(mesh.size())
    part = parts[get_rank()] if get_rank() < len(parts) else value[:0].to(parameter.device)
    return DTensor.from_local(part, mesh, parameter.placements, shape=value.shape, stride=value.stride())


def _gather_weights(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[name] = _gathered(state[name])


def _shard_weights(module: nn.Module, state: dict, prefix: str, *_) -> None:
    for name, parameter in module.named_parameters(prefix.removesuffix('.')):
        if name in state:
            state[name] = _sharded(state[name], parameter)


def _gather_state(optimizer: torch.optim.Optimizer, state: dict) -> dict:
    of_parameters = {
        index: {name: _gathered(value) for name, value in values.items()} for index, values in state['state'].items()
    }
    return {**state, 'state': of_parameters}


def _shard_state(optimizer: torch.optim.Optimizer, state: dict) -> dict:
    parameters = _parameters(optimizer)
    of_parameters = {
        index: {name: _sharded(value, parameters[index]) for name, value in values.items()}
        for index, values in state['state'].items()
    }
    return {**state, 'state': of_parameters}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group['params']]


def _refuse_copy(block: nn.Module, memo: dict) -> NoReturn:
    """Blocks alone are copied where a network meets images of another size than its own, and MixToken needs the grid.

    Raises:
        UserError: always.
    """
    raise UserError(
        'sharding=fsdp with MixToken wants to know the size of images beforehand: name it with '
        'model.network.pretrained_cfg_overlay.input_size=[3,HEIGHT,WIDTH], or set model.network.mix_token=False.'
    )


def _copy_of_shards(network: nn.Module, memo: dict) -> nn.Module:
    twin = copy.deepcopy(network._blueprint[0])
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        owner, _, own_name = name.rpartition('.')
        copied = tensor.detach().clone()
        if isinstance(tensor, nn.Parameter):
            copied = nn.Parameter(copied, tensor.requires_grad)
        setattr(twin.get_submodule(owner), own_name, copied)
    return twin
