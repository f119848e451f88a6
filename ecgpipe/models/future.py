"""Future prediction: contrastive predictive coding (paper, "Future prediction framework", Fig. 2).

Shapes: B batch, F frames an item, T samples a frame, N frames of context, K negatives an item.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .resnet import ResNet


class Layer(nn.Module):
    """One encoder layer of a Transformer, norms behind the sums (Vaswani et al. 2017).

    PyTorch's own layer has no option for the scale of the attention logits.
    """

    def __init__(self, width: int, heads: int, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)
        self.norm2 = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # as in the released code and in Vaswani et al.'s
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, width)."""
        query, key, value = (
            part(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        x = self.norm1(x + self.out(mixed.transpose(1, 2).flatten(2)))
        out: Tensor = self.norm2(x + self.linear2(torch.relu(self.linear1(x))))
        return out


def positions(count: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal positions, sines and cosines in turn: (count, width), in the dtype of ``like``."""
    place = torch.arange(count, dtype=like.dtype, device=like.device)[:, None]
    channel = torch.arange(0, width, 2, dtype=like.dtype, device=like.device)
    angle = place / 10_000 ** (channel / width)
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)


class AttentionPooling(nn.Module):
    """A context vector from the encodings of frames, by a Transformer.

    A learnt token is put in front of the frames, and its output is the context vector.

    Parameters
    ----------
    width
        Numbers an encoding has, a multiple of ``heads`` and even.
    layers
        Transformer layers; the inner ones are ``2 * width`` wide, and nothing is dropped out.
    heads
        Attention heads of each layer.
    scale
        What attention logits are divided by: "head", the root of a head's width, as in Vaswani et
        al.; "model", the root of ``width``, as in the paper's released code.
    """

    def __init__(self, width: int, layers: int = 3, heads: int = 8, scale: str = "head") -> None:
        super().__init__()
        if scale not in ("head", "model"):
            raise ValueError(f"scale {scale!r} is neither 'head' nor 'model'")
        factor = (width / heads if scale == "head" else width) ** -0.5
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(width)))
        self.layers = nn.Sequential(*(Layer(width, heads, factor) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """Context vectors of frames in their order: (B, N, width) -> (B, width)."""
        count, frames, width = x.shape
        x = torch.cat([self.token.expand(count, 1, -1), x], 1)
        x = x * width**0.5 + positions(1 + frames, width, self.token)
        out: Tensor = self.layers(x)[:, 0]
        return out


class FuturePrediction(nn.Module):
    """How well each of some frames would continue a context: scores whose softmax is learnt.

    The cross-entropy of the scores and the place of the positive among the candidates is the
    InfoNCE loss.

    Parameters
    ----------
    encoder
        The network to pretrain, of one lead; its head, if any, is not used.
    context
        Frames an item has before its positive.
    layers, heads, scale
        See :class:`AttentionPooling`.
    """

    def __init__(
        self,
        encoder: ResNet,
        context: int,
        layers: int = 3,
        heads: int = 8,
        scale: str = "head",
    ) -> None:
        super().__init__()
        self.context = context
        self.encoder = encoder
        self.pooling = AttentionPooling(encoder.width, layers, heads, scale)

    def forward(self, x: Tensor, candidates: Tensor) -> Tensor:
        """Scores of the candidates, whose frames are encoded once for all items.

        Parameters
        ----------
        x
            (B, F, T) standardised frames with F = context + 1: the context in its order, then the
            positive.
        candidates
            (B, K + 1) int64, places among the B * F frames, the item's own positive
            ``item * F + context`` being one of them.

        Returns
        -------
        Tensor
            (B, K + 1) scores, not normalised.
        """
        items, frames, _ = x.shape
        if frames != self.context + 1:
            raise ValueError(f"{frames} frames an item instead of {self.context} + 1")
        encoded = self.encoder.features(x.flatten(0, 1).unsqueeze(1))
        pooled = self.pooling(encoded.unflatten(0, (items, frames))[:, : self.context])
        # Sums of products rather than a matrix product, which autocast would round to bfloat16.
        return (pooled[:, None] * encoded[candidates]).sum(2)
