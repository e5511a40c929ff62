"""A loss that is not finite in one process skips the step in all of them."""

import torch
from mmengine.model import MMDistributedDataParallel
from torch import nn

from tests.two_processes import in_two_processes
from tokenlabel.engine.optim.optim_wrapper import SkippingOptimWrapper


def train_a_step_that_one_process_breaks(rank: int) -> None:
    torch.manual_seed(0)
    network = MMDistributedDataParallel(nn.Linear(3, 1), device_ids=None)
    wrapper = SkippingOptimWrapper(torch.optim.AdamW(network.parameters(), lr=0.1, fused=True))
    before = network.module.weight.clone()
    for factor, stepped in ((float('nan') if rank else 1.0, False), (1.0, True)):
        with wrapper.optim_context(network):
            loss = network(torch.ones(2, 3)).sum() * factor
        wrapper.update_params(loss)
        assert bool(wrapper.stepped) == stepped
        assert torch.equal(network.module.weight, before) != stepped


def test_all_processes_skip_the_step_that_one_breaks():
    in_two_processes(train_a_step_that_one_process_breaks)
