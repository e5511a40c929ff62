"""Optimizer steps, gradient accumulation and EMA weights."""
