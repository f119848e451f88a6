"""Residual networks for ECG (paper, "Convolutional neural network"; He et al. 2016, v2).

Shapes: B batch, L leads, T samples, C channels. Convolutions run as two-dimensional ones of height
1 in channels-last order: the same arithmetic, about twice as fast as one-dimensional ones on a CPU.
Whatever has stride 2 gives ceil(T / 2) samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

KERNELS = (7, 5, 5, 3)  # of the four stages, as the paper chose them
WIDTHS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # blocks a stage, by depth
BOTTLENECKS = (50,)  # depths whose blocks are bottlenecks
ORDERS = ("pre", "post")


def standardise(x: Tensor, scale: Tensor, offset: Tensor, length: Tensor) -> Tensor:
    """Standardised input from ADC units: ``x * scale + offset``, zero in front of the signal.

    Shapes: x (B, L, T) integers, scale and offset (B, L), length (B,) samples at the end that are
    signal. Returns float32 (B, L, T).
    """
    values = x.float() * scale[:, :, None] + offset[:, :, None]
    position = torch.arange(x.shape[-1], device=x.device)
    return values * (position >= x.shape[-1] - length[:, None])[:, None]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), (0, kernel // 2), bias=False)


class Block(nn.Module):
    """A residual block: convolutions with batch norm and ReLU, and a shortcut.

    A basic block has two convolutions with the stage's kernel. A bottleneck has one of them, with
    the stride, between two of kernel 1, the last of which gives four times the width. In order
    "pre" (v2) norm and ReLU stand in front of each convolution, and a shortcut that has to change
    the shape gets what the first of them gives; in order "post" (v1) a norm follows each
    convolution, that of the shortcut included, and the last ReLU follows the sum.
    """

    def __init__(
        self, inputs: int, width: int, kernel: int, stride: int, bottleneck: bool, order: str
    ) -> None:
        super().__init__()
        self.pre = order == "pre"
        outputs = 4 * width if bottleneck else width
        change = stride > 1 or inputs != outputs
        first, strides = (1, (1, stride)) if bottleneck else (kernel, (stride, 1))
        self.norm1 = nn.BatchNorm2d(inputs if self.pre else width)
        self.conv1 = _convolution(inputs, width, first, strides[0])
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, kernel, strides[1])
        self.norm3 = nn.BatchNorm2d(width if self.pre else outputs) if bottleneck else None
        self.conv3 = _convolution(width, outputs, 1) if bottleneck else None
        self.shortcut = _convolution(inputs, outputs, 1, stride) if change else None
        self.shortcut_norm = nn.BatchNorm2d(outputs) if change and not self.pre else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 1, T) -> (B, C', 1, ceil(T / stride))."""
        return self._forward_pre(x) if self.pre else self._forward_post(x)

    def _forward_pre(self, x: Tensor) -> Tensor:
        active = torch.relu(self.norm1(x))
        rest = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(torch.relu(self.norm2(self.conv1(active))))
        if self.norm3 is not None and self.conv3 is not None:
            out = self.conv3(torch.relu(self.norm3(out)))
        return out + rest

    def _forward_post(self, x: Tensor) -> Tensor:
        rest = x
        if self.shortcut is not None and self.shortcut_norm is not None:
            rest = self.shortcut_norm(self.shortcut(x))
        out: Tensor = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        if self.norm3 is not None and self.conv3 is not None:
            out = self.norm3(self.conv3(torch.relu(out)))
        return torch.relu(out + rest)


class ResNet(nn.Module):
    """A residual network from standardised signals to class scores.

    Parameters, in numbers, with one lead and five classes:

    ===== ========== ==========
    depth order pre  order post
    ===== ========== ==========
    18     4,483,653  4,485,445
    34     9,070,405  9,072,197
    50    16,923,461 16,931,141
    ===== ========== ==========

    Parameters
    ----------
    classes
        Number of outputs; None leaves the head out: an encoder, whose output is its features.
    leads
        Channels of the input.
    depth
        Layers, a key of ``BLOCKS``.
    order
        "pre": norm and ReLU in front of the convolutions, as the paper says (v2); "post": behind
        them, as in the paper's released code (v1).
    stages
        How many of the four stages to build, from the first on.

    Attributes
    ----------
    width
        Number of features.
    """

    def __init__(
        self,
        classes: int | None,
        leads: int = 1,
        depth: int = 18,
        order: str = "pre",
        stages: int = 4,
    ) -> None:
        super().__init__()
        if depth not in BLOCKS or order not in ORDERS or not 1 <= stages <= len(WIDTHS):
            raise ValueError(f"no such network: depth {depth}, order {order}, {stages} stages")
        pre, bottleneck = order == "pre", depth in BOTTLENECKS
        width = WIDTHS[0]
        self.stem = _convolution(leads, width, 7, 2)
        self.stem_norm = None if pre else nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d((1, 3), (1, 2), (0, 1))
        self.stages = nn.ModuleList()
        for number in range(stages):
            stage = nn.Sequential()
            for i in range(BLOCKS[depth][number]):
                stride = 2 if number and i == 0 else 1
                stage.append(
                    Block(width, WIDTHS[number], KERNELS[number], stride, bottleneck, order)
                )
                width = 4 * WIDTHS[number] if bottleneck else WIDTHS[number]
            self.stages.append(stage)
        self.width = width
        self.norm = nn.BatchNorm2d(width) if pre else None
        self.head = nn.Identity() if classes is None else nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, equation 10
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, x: Tensor) -> Tensor:
        """Features of each recording: (B, L, T) -> (B, width), averaged over time."""
        x = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        if self.stem_norm is not None:
            x = torch.relu(self.stem_norm(x))
        x = self.pool(x)
        for stage in self.stages:
            x = stage(x)
        if self.norm is not None:
            x = torch.relu(self.norm(x))
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores: (B, L, T) -> (B, classes), or (B, width) without a head."""
        scores: Tensor = self.head(self.features(x))
        return scores
