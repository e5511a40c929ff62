"""Signals, standard streams, progress bars, and the environment of distributed launchers."""
