"""Logging before the process group exists, when MMEngine cannot tell the ranks apart."""

import logging
import os

from mmengine.logging import print_log


def rank_zero_log(text: str, level: int = logging.WARNING) -> None:
    """Logs a text on rank 0 alone, by the rank that the launcher has set in the environment."""
    if os.environ.get('RANK', '0') == '0':
        print_log(text, logger='current', level=level)
