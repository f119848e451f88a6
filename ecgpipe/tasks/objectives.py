"""Objectives of training: one class of an item, or any number of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ..metrics.multi_label import scores_many_of
from ..metrics.single_label import scores_one_of


class Objective(NamedTuple):
    """Activation, loss and scores that belong together; n items, c classes."""

    losses: Callable[[Tensor, Tensor], Tensor]  # scores (n, c), y -> (n,) nats
    right: Callable[[Tensor, Tensor], Tensor]  # scores (n, c), y -> (n,) share of right decisions
    probability: Callable[[Tensor], Tensor]  # scores (n, c) -> (n, c)
    scores: Callable[[NDArray[Any], NDArray[Any]], dict[str, float]]  # labels, probabilities


SINGLE_LABEL = Objective(  # y is (n,) int64
    losses=lambda scores, y: cross_entropy(scores, y, reduction="none"),
    right=lambda scores, y: (scores.argmax(1) == y).float(),
    probability=lambda scores: scores.softmax(1),
    scores=scores_one_of,
)
MULTI_LABEL = Objective(  # y is (n, c), 0 or 1; the loss is the mean over the classes
    losses=lambda scores, y: binary_cross_entropy_with_logits(
        scores, y.to(scores.dtype), reduction="none"
    ).mean(1),
    right=lambda scores, y: ((scores >= 0) == (y > 0)).float().mean(1),
    probability=torch.sigmoid,
    scores=scores_many_of,
)
OBJECTIVES = {"one_of": SINGLE_LABEL, "many_of": MULTI_LABEL, "contrastive": SINGLE_LABEL}
