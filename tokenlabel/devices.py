"""Devices to compute on."""

import torch

from tokenlabel.errors import UserError

# Of all that torch can name: others hold no numbers, or convert models rather than run them.
KINDS = ('cpu', 'cuda', 'mps', 'xpu')


def usable_device(device: str | torch.device | None = None) -> torch.device:
    """A device that is there and computes; without a name the GPU if there is one, else the CPU.

    Args:
        device: such as 'cpu', 'cuda' or 'cuda:1'.

    Raises:
        UserError: there is no such device here.
    """
    usual = 'cuda' if torch.cuda.is_available() else 'cpu'
    name = usual if device is None else device
    try:
        found = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise UserError(f'{name or "An empty name"} is not a device: give cpu, cuda or cuda:N.') from error
    if found.type not in KINDS:
        raise UserError(f'{name} is not a device to compute on: give cpu, cuda or cuda:N.')
    if found.type == 'cuda' and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(f'there is no device {name} here, but {torch.cuda.device_count()} GPUs: give another, or cpu.')
    try:
        torch.zeros(1, device=found).add_(1)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UserError(
            f'there is no device {name} here ({str(error).splitlines()[0]}): give another, or cpu.'
        ) from error
    return found
