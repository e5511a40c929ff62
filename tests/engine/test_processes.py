"""Two processes train as one does with their images in one batch."""

import torch

from tests.training_processes import settings, train, train_in_two_processes
from tokenlabel.checkpoints.weights import read_checkpoint


def test_two_processes_train_as_one_with_the_same_global_batch(scenes, label_store, tmp_path):
    options = {
        'optim_wrapper.optimizer': {'_delete_': True, 'type': 'SGD', 'lr': 0.1, 'weight_decay': 0.05},
        'custom_hooks': [{'type': 'FrozenBatchNorm'}, {'type': 'ModelConfigHook'}],
    }
    one = settings(scenes, label_store, tmp_path / 'one', **options, **{'train_dataloader.batch_size': 8})
    train(one)
    train_in_two_processes([settings(scenes, label_store, tmp_path / 'two', **options)])
    first, second = (read_checkpoint(tmp_path / name / 'iter_3.pth') for name in ('one', 'two'))
    for weights in ('state_dict', 'ema_state_dict'):
        torch.testing.assert_close(first[weights], second[weights], rtol=1e-4, atol=1e-5)
