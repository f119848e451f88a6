"""Residual networks against a plain one-dimensional statement of them; transfer of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgpipe.config import PretrainSettings
from ecgpipe.models.resnet import ResNet, standardise, transfer
from ecgpipe.training.device import choose
from ecgpipe.training.loop import HISTORY, Plan, fit, new_network
from ecgpipe.types import Batch

STAGES = ((64, 7), (128, 5), (256, 5), (512, 3))


def _parameters(leads: int, classes: int) -> int:
    """Convolutions without bias, two numbers a channel for each batch norm, one linear layer."""
    total, width = leads * 64 * 7, 64
    for outputs, kernel in STAGES:
        for block in range(2):
            inputs = width if block == 0 else outputs
            total += 2 * inputs + inputs * outputs * kernel + 2 * outputs + outputs**2 * kernel
            total += inputs * outputs if inputs != outputs else 0
        width = outputs
    return total + 2 * 512 + 512 * classes + classes


@pytest.mark.parametrize(("leads", "classes"), [(1, 5), (1, 4), (2, 5), (12, 71)])
def test_number_of_parameters(leads: int, classes: int) -> None:
    network = ResNet(classes, leads)
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert count == _parameters(leads, classes)
    if (leads, classes) == (1, 5):
        assert count == 4_483_653


def _norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, var = norm.running_mean[:, None], norm.running_var[:, None]
    return (x - mean) / (var + 1e-5).sqrt() * norm.weight[:, None] + norm.bias[:, None]


def _conv(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return F.conv1d(x, weight.squeeze(2), stride=stride, padding=weight.shape[-1] // 2)


def _plainly(network: ResNet, x: Tensor) -> Tensor:
    """He et al. 2016 v2 in one dimension, with the tensors of a network, in double precision."""
    parts = dict(network.named_modules())
    x = F.max_pool1d(_conv(x, parts["stem"].weight, 2), 3, 2, 1)
    for stage in range(4):
        for block in range(2):
            name = f"blocks.{2 * stage + block}"
            stride = 2 if stage and not block else 1
            active = F.relu(_norm(x, parts[f"{name}.norm1"]))
            out = _conv(active, parts[f"{name}.conv1"].weight, stride)
            out = F.relu(_norm(out, parts[f"{name}.norm2"]))
            out = _conv(out, parts[f"{name}.conv2"].weight, 1)
            if stage and not block:
                x = _conv(active, parts[f"{name}.shortcut"].weight, stride)
            x = out + x
    x = F.relu(_norm(x, parts["norm"])).mean(2)
    return x @ parts["head"].weight.T + parts["head"].bias


def _random(leads: int = 1, classes: int = 5, seed: int = 0) -> ResNet:
    """A network in which no statistic and no scale is at its initial value."""
    torch.manual_seed(seed)
    network = ResNet(classes, leads).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network


@pytest.mark.parametrize("samples", [1, 2, 31, 32, 33, 255, 256, 257, 1000, 1001])
@pytest.mark.parametrize("leads", [1, 3])
@torch.no_grad()
def test_two_dimensional_trick_is_the_one_dimensional_network(samples: int, leads: int) -> None:
    network = _random(leads).double()
    x = torch.randn(2, leads, samples, dtype=torch.float64)
    torch.testing.assert_close(network(x), _plainly(network, x), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_items_do_not_see_each_other() -> None:
    network, x = _random().double(), torch.randn(3, 1, 200, dtype=torch.float64)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-9, atol=1e-9)


def test_initial_weights_are_he() -> None:
    torch.manual_seed(0)
    for module in ResNet(5).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            wanted = (2 / (module.in_channels * module.kernel_size[1])) ** 0.5
            assert float(module.weight.detach().std()) == pytest.approx(wanted, rel=0.03)
            assert abs(float(module.weight.detach().mean())) < 0.1 * wanted


@pytest.mark.parametrize("leads", [1, 2])
def test_standardise(leads: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-32768, 32768, (5, leads, 40)).astype(np.int16)
    scale = rng.uniform(0.001, 0.01, (5, leads)).astype(np.float32)
    offset = rng.normal(size=(5, leads)).astype(np.float32)
    length = np.array([40, 39, 1, 0, 17])
    got = standardise(*map(torch.from_numpy, (x, scale, offset, length)))
    wanted = x.astype(np.float64) * scale[..., None] + offset[..., None]
    for item, count in zip(wanted, length, strict=True):
        item[:, : 40 - count] = 0
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-5, atol=1e-5)
    assert not got.numpy()[3].any()


def test_transfer_takes_everything_but_the_head() -> None:
    old, new = _random(classes=5, seed=1), ResNet(4)
    head = {name: t.clone() for name, t in new.head.state_dict().items()}
    fate = transfer(new, old.state_dict())
    assert fate["new"] == ["head.weight", "head.bias"]
    assert fate["adapted"] == []
    assert sorted(fate["loaded"] + fate["new"]) == sorted(new.state_dict())
    for name in fate["loaded"]:
        assert torch.equal(new.state_dict()[name], old.state_dict()[name]), name
    for name, tensor in new.head.state_dict().items():
        assert torch.equal(tensor, head[name])


@torch.no_grad()
def test_twelve_leads_repeat_the_filters() -> None:
    old, new = _random(seed=1), ResNet(5, leads=12).eval()
    fate = transfer(new, old.state_dict())
    assert fate["adapted"] == ["stem.weight"]
    for lead in range(12):
        torch.testing.assert_close(new.stem.weight[:, lead] * 12, old.stem.weight[:, 0])
    x = torch.randn(2, 1, 300)
    same = new.features(x.expand(2, 12, 300))
    torch.testing.assert_close(same, old.features(x), rtol=1e-4, atol=1e-4)
    mixed = torch.randn(2, 12, 300)
    mean = old.features(mixed.mean(1, keepdim=True))
    torch.testing.assert_close(new.features(mixed), mean, rtol=1e-4, atol=1e-4)


def test_misfits_fail_by_name_and_change_nothing() -> None:
    network = ResNet(5)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    state = dict(ResNet(5).state_dict())
    state["blocks.2.conv1.weight"] = state["blocks.2.conv1.weight"][..., :3]
    del state["norm.bias"]
    state["extra.weight"] = torch.zeros(3)
    with pytest.raises(ValueError, match="weights do not fit") as error:
        transfer(network, state)
    for part in (
        "blocks.2.conv1.weight (128, 64, 1, 3) instead of (128, 64, 1, 5)",
        "norm.bias missing",
        "extra.weight left over",
    ):
        assert part in str(error.value)
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    with pytest.raises(ValueError, match=r"stem\.weight"):
        transfer(network, ResNet(5, leads=2).state_dict())


def test_sixteen_frames_can_be_learnt_by_heart(tmp_path: Path) -> None:
    rng, ones = np.random.default_rng(0), np.ones((16, 1), np.float32)
    x = rng.integers(-2000, 2000, (16, 1, 256)).astype(np.int16)
    y, keys = rng.integers(0, 5, 16), np.array(["r"] * 16, object)
    batch = Batch(x, ones / 1000, 0 * ones, np.full(16, 256), y, keys)
    settings = PretrainSettings(device="cpu", precision="fp32")
    plan = Plan("overfit", 40, lambda epoch: [batch], lambda: [batch], "accuracy", None, {})
    fit(new_network(lambda: ResNet(5), 0), plan, settings, choose(settings), tmp_path)
    header, *_, row = (tmp_path / HISTORY).read_text().split()
    last = dict(zip(header.split(","), row.split(","), strict=True))
    assert float(last["train_loss"]) < 0.01
    assert float(last["validation_accuracy"]) == 1
