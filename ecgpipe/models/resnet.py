"""Residual networks for ECG (paper, "Convolutional neural network"; He et al. 2016, v2).

Shapes: B batch, L leads, T samples, C channels. Convolutions run as two-dimensional ones of height
1 in channels-last order: the same arithmetic, about twice as fast as one-dimensional ones on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

KERNELS = (7, 5, 5, 3)  # of the four stages, as the paper chose them
WIDTHS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2)}  # blocks a stage, by depth


def standardise(x: Tensor, scale: Tensor, offset: Tensor, length: Tensor) -> Tensor:
    """Standardised input from ADC units: ``x * scale + offset``, zero in front of the signal.

    Shapes: x (B, L, T) integers, scale and offset (B, L), length (B,) samples at the end that are
    signal. Returns float32 (B, L, T).
    """
    values = x.float() * scale[:, :, None] + offset[:, :, None]
    place = torch.arange(x.shape[-1], device=x.device)
    return values * (place >= x.shape[-1] - length[:, None])[:, None]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), (0, kernel // 2), bias=False)


class Block(nn.Module):
    """Two convolutions, each behind batch norm and ReLU (pre-activation, v2)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = _convolution(inputs, outputs, kernel, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = _convolution(outputs, outputs, kernel)
        change = stride > 1 or inputs != outputs
        self.shortcut = _convolution(inputs, outputs, 1, stride) if change else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 1, T) -> (B, C', 1, ceil(T / stride))."""
        active = torch.relu(self.norm1(x))
        rest = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(torch.relu(self.norm2(self.conv1(active))))
        return out + rest


class ResNet(nn.Module):
    """A residual network from standardised signals to class scores.

    Parameters
    ----------
    classes
        Number of outputs.
    leads
        Channels of the input.
    depth
        Layers, a key of ``BLOCKS``; 18 has 4,483,653 parameters with one lead and five classes.
    """

    def __init__(self, classes: int, leads: int = 1, depth: int = 18) -> None:
        super().__init__()
        self.stem = _convolution(leads, WIDTHS[0], 7, 2)
        self.pool = nn.MaxPool2d((1, 3), (1, 2), (0, 1))
        blocks = []
        width = WIDTHS[0]
        for stage, (count, outputs, kernel) in enumerate(
            zip(BLOCKS[depth], WIDTHS, KERNELS, strict=True)
        ):
            for i in range(count):
                stride = 2 if stage and i == 0 else 1
                blocks.append(Block(width, outputs, kernel, stride))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, equation 10
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, x: Tensor) -> Tensor:
        """Features of each recording: (B, L, T) -> (B, 512), averaged over time."""
        x = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        x = self.blocks(self.pool(self.stem(x)))
        return torch.relu(self.norm(x)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores: (B, L, T) -> (B, classes)."""
        scores: Tensor = self.head(self.features(x))
        return scores


def transfer(network: ResNet, state: dict[str, Tensor]) -> dict[str, list[str]]:
    """Take over pretrained weights, all but the head; says what became of every tensor.

    The first convolution is adapted to more leads by repeating its filters and dividing them by the
    number of leads (paper, "Downstream data set").

    Returns
    -------
    dict
        Names of tensors that were ``loaded``, ``adapted`` or are ``new``.

    Raises
    ------
    ValueError
        A tensor that is missing, left over, or of another shape, by name.
    """
    own = network.state_dict()
    fate: dict[str, list[str]] = {"loaded": [], "adapted": [], "new": []}
    wrong = [f"{name} left over" for name in state.keys() - own.keys()]
    for name, tensor in own.items():
        given = state.get(name)
        if name.startswith("head."):
            fate["new"].append(name)
        elif given is None:
            wrong.append(f"{name} missing")
        elif given.shape == tensor.shape:
            own[name] = given
            fate["loaded"].append(name)
        elif name == "stem.weight" and given.shape[1] == 1:
            own[name] = given.repeat(1, tensor.shape[1], 1, 1) / tensor.shape[1]
            fate["adapted"].append(name)
        else:
            wrong.append(f"{name} {tuple(given.shape)} instead of {tuple(tensor.shape)}")
    if wrong:
        raise ValueError("weights do not fit: " + "; ".join(sorted(wrong)))
    network.load_state_dict(own)
    return fate
