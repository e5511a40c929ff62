"""Resuming: an interrupted run continues exactly as an uninterrupted one."""
