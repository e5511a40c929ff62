"""A loss that is not finite in one process skips the step in all of them."""

import torch
import torch.multiprocessing
from mmengine.model import MMDistributedDataParallel
from torch import distributed, nn

from tokenlabel.engine.optim_wrapper import SkippingOptimWrapper


def train_a_step_that_one_process_breaks(rank: int, meeting_point: str) -> None:
    distributed.init_process_group('gloo', init_method=f'file://{meeting_point}', rank=rank, world_size=2)
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
    distributed.destroy_process_group()


def test_all_processes_skip_the_step_that_one_breaks(tmp_path):
    arguments = (str(tmp_path / 'meeting_point'),)
    torch.multiprocessing.spawn(train_a_step_that_one_process_breaks, arguments, nprocs=2)
