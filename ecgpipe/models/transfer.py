"""Pretrained weights for a network to be finetuned (paper, "Finetuning", "Downstream data set")."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor

from .resnet import ResNet


def transfer(network: ResNet, state: dict[str, Tensor]) -> dict[str, list[str]]:
    """Load pretrained weights, all but the head; returns what was done with every tensor.

    The first convolution is adapted to more leads by repeating its filters and dividing them by the
    number of leads (paper, "Downstream data set"). Where only the first stages were pretrained, the
    later ones stay as they are, and so does the final norm, which is wider than the pretrained one.

    Parameters
    ----------
    network
        Of the same depth and order as the pretrained one.
    state
        Of a ResNet, or of a FuturePrediction, whose encoder is taken.

    Returns
    -------
    dict
        Names of the network's tensors that were ``loaded``, ``adapted`` or are ``new``, and of
        those of the state that are ``unused``: a head, attention pooling, and the final norm where
        later stages are new.

    Raises
    ------
    ValueError
        A tensor that is missing, left over, or of another shape, by name. Nothing is changed then.
    """
    prefix = "encoder." if any(name.startswith("encoder.") for name in state) else ""
    given, unused, wrong = _encoder_weights(state, prefix)
    own = network.state_dict()
    wanted, resized_norm = _wanted(own, _stages(given))
    taken, adapted = {}, []
    for name, tensor in wanted.items():
        found = given.pop(name, None)
        if found is None:
            wrong.append(f"{name} missing")
        elif found.shape == tensor.shape:
            taken[name] = found
        elif name == "stem.weight" and found.shape == (len(tensor), 1, *tensor.shape[2:]):
            taken[name] = found.repeat(1, tensor.shape[1], 1, 1) / tensor.shape[1]
            adapted.append(name)
        else:
            wrong.append(f"{name} {tuple(found.shape)} instead of {tuple(tensor.shape)}")
    wrong += [f"{prefix}{name} left over" for name in given]
    if wrong:
        raise ValueError("weights do not fit: " + "; ".join(sorted(wrong)))
    for name in resized_norm:
        del taken[name]
        unused.append(prefix + name)
    network.load_state_dict(own | taken)
    return {
        "loaded": [name for name in taken if name not in adapted],
        "adapted": adapted,
        "new": [name for name in own if name not in taken],
        "unused": unused,
    }


def _encoder_weights(
    state: dict[str, Tensor], prefix: str
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The encoder's tensors without their prefix, names not used, and what is wrong."""
    aside = ("encoder.head.", "pooling.") if prefix else ("head.",)
    given, unused, wrong = {}, [], []
    for name, tensor in state.items():
        if name.startswith(aside):
            unused.append(name)
        elif name.startswith(prefix):
            given[name.removeprefix(prefix)] = tensor
        else:
            wrong.append(f"{name} left over")
    return given, unused, wrong


def _wanted(own: dict[str, Tensor], pretrained: int) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors to find among pretrained weights of some stages, and those of a wider final norm."""
    stages = _stages(own)
    late = tuple(f"stages.{number}." for number in range(pretrained or stages, stages))
    wanted = {name: tensor for name, tensor in own.items() if not name.startswith(("head.", *late))}
    norm = [name for name in wanted if late and name.startswith("norm.")]
    for name in norm:  # after fewer stages it is as wide as the first norm of the next stage
        wanted[name] = own[f"{late[0]}0.norm1.{name.removeprefix('norm.')}"]
    return wanted, norm


def _stages(names: Iterable[str]) -> int:
    """Number of stages up to the last that has a tensor."""
    found = (re.match(r"stages\.(\d+)\.", name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)
