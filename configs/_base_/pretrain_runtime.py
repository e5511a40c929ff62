"""Settings of every pretraining beside the recipe: logging, checkpoints, validation, random seeds."""

custom_imports = dict(imports=['tokenlabel.engine'], allow_failed_imports=False)
default_scope = 'mmengine'

val_cfg = dict(type='RawAndEMAValLoop')
val_evaluator = dict(type='TopK', topk=(1, 5))
test_cfg = dict()
test_evaluator = val_evaluator

default_hooks = dict(
    runtime_info=dict(type='DeferredRuntimeInfoHook'),
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='ResumableCheckpointHook', by_epoch=False, interval=5000, max_keep_ckpts=3, save_best='top1'),
)
custom_hooks = [
    dict(type='StopOnNonFiniteSteps', interval=50),
    dict(type='ThroughputHook'),
    dict(type='ProgressBar'),
    dict(type='FirstBatchPicture'),
    dict(type='ModelConfigHook'),
]
log_processor = dict(by_epoch=False, mean_pattern='.*(loss|time|grad_norm|accuracy).*')
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
randomness = dict(seed=0, diff_rank_seed=True)
