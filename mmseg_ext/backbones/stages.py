"""Output indices and frozen stages, with the same rules for every backbone.

Stages are numbered by timm's `group_matcher(coarse=True)`: 0 is the stem with the embeddings; the blocks of a plain
transformer, or the stages of a pyramid, follow from 1.
"""

from collections.abc import Sequence

from timm.models import group_parameters
from torch import nn

from tokenlabel.errors import UserError


def checked_indices(out_indices: Sequence[int], count: int) -> tuple[int, ...]:
    """`out_indices` as a tuple.

    Args:
        out_indices: Blocks or levels whose output is returned.
        count: Number of blocks or levels of the backbone.

    Raises:
        UserError: `out_indices` is empty, does not ascend, or is out of range.
    """
    indices = tuple(out_indices)
    if not indices or indices != tuple(sorted(set(indices) & set(range(count)))):
        raise UserError(f'out_indices {indices} must ascend and lie within 0 to {count - 1}')
    return indices


def freeze_stages(backbone: nn.Module, stages: int) -> None:
    """Freezes the first stages.

    Args:
        backbone: A model with timm's `group_matcher`.
        stages: -1 trains everything; n >= 0 freezes the stem, the embeddings and the first n blocks or stages.

    Raises:
        UserError: The model has fewer stages, or timm does not number them.
    """
    if stages == -1:
        return
    if not hasattr(backbone, 'group_matcher'):
        raise UserError(f'timm does not number the stages of {type(backbone).__name__}: set frozen_stages=-1')
    stage_of = group_parameters(backbone, backbone.group_matcher(coarse=True), reverse=True)
    last = max(stage_of.values())
    if not 0 <= stages <= last:
        raise UserError(f'frozen_stages is {stages} but must be -1 to {last}')
    for name, parameter in backbone.named_parameters():
        if stage_of[name] <= stages:
            parameter.requires_grad_(False)


def evaluate_frozen(module: nn.Module) -> None:
    """Sets modules with frozen parameters only, and the dropout of frozen embeddings, to evaluation mode."""
    for name, child in module.named_children():
        parameters = list(child.parameters())
        if name == 'pos_drop' or (parameters and not any(x.requires_grad for x in parameters)):
            child.eval()
        else:
            evaluate_frozen(child)
