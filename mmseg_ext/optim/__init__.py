"""Optimizer constructors by registry name."""

from mmseg_ext.optim.layer_decay import TimmLayerDecay

__all__ = ['TimmLayerDecay']
