"""Which of timm's classifiers can annotate."""

from timm import list_modules


def describe_families() -> str:
    """Lines of text, one per model family of timm."""
    return '\n'.join(list_modules())
