"""What a model with a class head and a token head returns, and how the two make one score."""

from typing import NamedTuple

from torch import Tensor


class TokenLogits(NamedTuple):
    """Logits of one training pass.

    Attributes:
        cls: Logits of the class token, `[B, C]`. Where MixToken exchanged a box they belong to the mixed image.
        tokens: Logits of the patch tokens in row-major order, `[B, N, C]`, the exchanged box already put back; None
            where not every token of the grid was seen.
        grid: Rows and columns of the tokens, `rows * cols == N`.
        mix_box: The exchanged box `(y1, x1, y2, x2)` in tokens, ends excluded; None where nothing was exchanged.
    """

    cls: Tensor
    tokens: Tensor | None = None
    grid: tuple[int, int] | None = None
    mix_box: Tensor | tuple[int, int, int, int] | None = None


def class_scores(cls: Tensor, tokens: Tensor | None, token_score_weight: float) -> Tensor:
    """Evaluation scores `cls + w * max over tokens` (released evaluation: w = 0.5).

    Args:
        cls: `[B, C]`.
        tokens: `[B, N, C]`; unused and allowed to be None when the weight is 0.
        token_score_weight: w; 0 scores the class token alone.

    Returns:
        `[B, C]`.
    """
    if token_score_weight == 0:
        return cls
    return cls + token_score_weight * tokens.amax(dim=1)
