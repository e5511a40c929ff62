"""Settings of every segmentation run: registries, logging, checkpoints, test-time augmentation."""

custom_imports = dict(imports=['mmseg_ext', 'tokenlabel.engine'], allow_failed_imports=False)
default_scope = 'mmseg'
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
custom_hooks = [
    dict(type='ReleasedNamesHook'),
    dict(type='StopOnNonFiniteSteps', interval=50),
    dict(type='ThroughputHook'),
    dict(type='ProgressBar'),
]
default_hooks = dict(
    runtime_info=dict(type='DeferredRuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='ResumableCheckpointHook', by_epoch=False, interval=8000, max_keep_ckpts=2, save_best='mIoU'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
log_level = 'INFO'
load_from = None
resume = False
tta_model = dict(type='BatchedTTAModel')
