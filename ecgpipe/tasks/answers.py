"""What a network's scores stand for: one class of an item, or any number of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from .multilabel import scores_many_of
from .scores import scores_one_of


class Answer(NamedTuple):
    """Activation, loss and scores that belong together; n items, c classes."""

    losses: Callable[[Tensor, Tensor], Tensor]  # scores (n, c), y -> (n,) nats
    right: Callable[[Tensor, Tensor], Tensor]  # scores (n, c), y -> (n,) share of right decisions
    probability: Callable[[Tensor], Tensor]  # scores (n, c) -> (n, c)
    scores: Callable[[NDArray[Any], NDArray[Any]], dict[str, float]]  # labels, probabilities


ONE_OF = Answer(  # y is (n,) int64
    losses=lambda scores, y: cross_entropy(scores, y, reduction="none"),
    right=lambda scores, y: (scores.argmax(1) == y).float(),
    probability=lambda scores: scores.softmax(1),
    scores=scores_one_of,
)
MANY_OF = Answer(  # y is (n, c), 0 or 1; the loss is the mean over the classes
    losses=lambda scores, y: binary_cross_entropy_with_logits(
        scores, y.to(scores.dtype), reduction="none"
    ).mean(1),
    right=lambda scores, y: ((scores >= 0) == (y > 0)).float().mean(1),
    probability=torch.sigmoid,
    scores=scores_many_of,
)
ANSWERS = {"one_of": ONE_OF, "many_of": MANY_OF, "contrastive": ONE_OF}
