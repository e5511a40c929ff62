"""The output of a model with a class head and a token head, and the score that combines both."""

from typing import NamedTuple

from torch import Tensor


class TokenLogits(NamedTuple):
    """Logits of one training pass.

    Attributes:
        cls: Logits of the class token, `[B, C]`. With MixToken they belong to the mixed image.
        tokens: Logits of the patch tokens in row-major order, `[B, N, C]`, with the exchanged box already put back;
            None if the model dropped tokens.
        grid: Rows and columns of the tokens, `rows * cols == N`.
        mix_box: The exchanged box `(y1, x1, y2, x2)` in tokens, ends excluded; None without MixToken.
    """

    cls: Tensor
    tokens: Tensor | None = None
    grid: tuple[int, int] | None = None
    mix_box: Tensor | tuple[int, int, int, int] | None = None


def class_scores(cls: Tensor, tokens: Tensor | None, token_score_weight: float) -> Tensor:
    """Evaluation scores `cls + w * max over tokens` (released evaluation: w = 0.5).

    Args:
        cls: `[B, C]`.
        tokens: `[B, N, C]`; may be None if the weight is 0.
        token_score_weight: w; 0 scores the class token alone.

    Returns:
        `[B, C]`.
    """
    if token_score_weight == 0:
        return cls
    return cls + token_score_weight * tokens.amax(dim=1)
