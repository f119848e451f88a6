"""Residual networks against a plain one-dimensional statement of them; transfer of weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgpipe.models.future import FuturePrediction
from ecgpipe.models.resnet import ResNet, standardise
from ecgpipe.models.transfer import transfer

STAGES = ((64, 7), (128, 5), (256, 5), (512, 3))
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
COUNTS = {  # with one lead and five classes, as the docstring says
    (18, "pre"): 4_483_653,
    (18, "post"): 4_485_445,
    (34, "pre"): 9_070_405,
    (34, "post"): 9_072_197,
    (50, "pre"): 16_923_461,
    (50, "post"): 16_931_141,
}
NETWORKS = pytest.mark.parametrize(("depth", "order"), COUNTS)


def _parameters(leads: int, classes: int, depth: int, order: str, stages: int) -> int:
    """Convolutions without bias, two numbers a channel for each batch norm, one linear layer."""
    pre = order == "pre"
    total, width = leads * 64 * 7 + (0 if pre else 2 * 64), 64
    for (inner, kernel), blocks in list(zip(STAGES, BLOCKS[depth], strict=True))[:stages]:
        outputs = 4 * inner if depth == 50 else inner
        for block in range(blocks):
            inputs = width if block == 0 else outputs
            if depth == 50:
                total += inputs * inner + inner**2 * kernel + inner * outputs
                norms = (inputs, inner, inner) if pre else (inner, inner, outputs)
            else:
                total += inputs * outputs * kernel + outputs**2 * kernel
                norms = (inputs, inner) if pre else (inner, outputs)
            total += 2 * sum(norms)
            if inputs != outputs:
                total += inputs * outputs + (0 if pre else 2 * outputs)
        width = outputs
    return total + (2 * width if pre else 0) + width * classes + classes


@NETWORKS
def test_number_of_parameters(depth: int, order: str) -> None:
    for leads, classes, stages in [(1, 5, 4), (1, 4, 4), (2, 5, 3), (12, 71, 2), (1, 2, 1)]:
        network = ResNet(classes, leads, depth, order, stages)
        count = sum(p.numel() for p in network.parameters() if p.requires_grad)
        assert count == _parameters(leads, classes, depth, order, stages)
        if (leads, classes, stages) == (1, 5, 4):
            assert count == COUNTS[depth, order]
            assert f"{count:,}" in (ResNet.__doc__ or "")


def _norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, var = norm.running_mean[:, None], norm.running_var[:, None]
    return (x - mean) / (var + 1e-5).sqrt() * norm.weight[:, None] + norm.bias[:, None]


def _conv(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return F.conv1d(x, weight.squeeze(2), stride=stride, padding=weight.shape[-1] // 2)


def _plainly(network: ResNet, x: Tensor, depth: int, order: str, stages: int) -> Tensor:
    """He et al. 2016 (v2, or v1 for post) in one dimension, with the tensors of a network."""
    parts = dict(network.named_modules())
    convolutions = 3 if depth == 50 else 2
    x = _conv(x, parts["stem"].weight, 2)
    if order == "post":
        x = F.relu(_norm(x, parts["stem_norm"]))
    x = F.max_pool1d(x, 3, 2, 1)
    for stage in range(stages):
        for block in range(BLOCKS[depth][stage]):
            name = f"stages.{stage}.{block}"
            stride = 2 if stage and not block else 1
            changes = not block and (stage > 0 or depth == 50)
            out = around = x
            for i in range(1, convolutions + 1):
                norm, weight = parts[f"{name}.norm{i}"], parts[f"{name}.conv{i}"].weight
                by = stride if i == convolutions - 1 else 1  # the first of two, the second of three
                if order == "pre":
                    out = F.relu(_norm(out, norm))
                    if i == 1 and changes:
                        around = _conv(out, parts[f"{name}.shortcut"].weight, stride)
                    out = _conv(out, weight, by)
                else:
                    out = _norm(_conv(out if i == 1 else F.relu(out), weight, by), norm)
            if order == "post" and changes:
                around = _conv(x, parts[f"{name}.shortcut"].weight, stride)
                around = _norm(around, parts[f"{name}.shortcut_norm"])
            x = out + around if order == "pre" else F.relu(out + around)
    if order == "pre":
        x = F.relu(_norm(x, parts["norm"]))
    return x.mean(2) @ parts["head"].weight.T + parts["head"].bias


def _random(network: nn.Module | None = None, seed: int = 0) -> nn.Module:
    """A network in which no statistic and no scale is at its initial value."""
    torch.manual_seed(seed)
    network = ResNet(5) if network is None else network
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


@NETWORKS
@torch.no_grad()
def test_two_dimensional_trick_is_the_one_dimensional_network(depth: int, order: str) -> None:
    lengths = [1, 2, 31, 32, 33, 255, 256, 257, 1000, 1001]
    for stages, leads in itertools.product([1, 2, 3, 4], [1, 3]):
        network = _random(ResNet(5, leads, depth, order, stages)).double()
        for samples in lengths if stages == 4 else [33, 130]:
            x = torch.randn(2, leads, samples, dtype=torch.float64)
            wanted = _plainly(network, x, depth, order, stages)
            torch.testing.assert_close(network(x), wanted, rtol=1e-9, atol=1e-9)


@NETWORKS
@torch.no_grad()
def test_encoders_give_features(depth: int, order: str) -> None:
    for stages, width in enumerate((64, 128, 256, 512), start=1):
        encoder = _random(ResNet(None, 1, depth, order, stages))
        assert encoder.width == (4 * width if depth == 50 else width)
        assert not [name for name in encoder.state_dict() if name.startswith("head.")]
        x = torch.randn(3, 1, 70)
        assert encoder.features(x).shape == (3, encoder.width)
        assert torch.equal(encoder(x), encoder.features(x))


@NETWORKS
@pytest.mark.parametrize("samples", [1, 2, 31, 32, 33, 1000, 1001])
@torch.no_grad()
def test_stride_two_rounds_up(depth: int, order: str, samples: int) -> None:
    network, lengths = ResNet(5, 1, depth, order).eval(), []
    for part in (network.stem, network.pool, *network.stages):
        part.register_forward_hook(lambda _, x, out: lengths.append((x[0].shape[3], out.shape[3])))
    network(torch.randn(1, 1, samples))
    halved = [(before + 1) // 2 for before, _ in lengths]
    halved[2] = lengths[2][0]  # the first stage has no stride
    assert [after for _, after in lengths] == halved


def test_names_of_tensors() -> None:
    names = {name.rpartition(".")[0] for name in ResNet(5, 1, 50, "post").state_dict()}
    block = {f"{part}{i}" for part in ("conv", "norm") for i in (1, 2, 3)}
    wanted = {"stem", "stem_norm", "head"}
    for stage, count in enumerate(BLOCKS[50]):
        wanted |= {f"stages.{stage}.{i}.{part}" for i in range(count) for part in block}
        wanted |= {f"stages.{stage}.0.shortcut", f"stages.{stage}.0.shortcut_norm"}
    assert names == wanted
    names = {name.rpartition(".")[0] for name in ResNet(None, stages=1).state_dict()}
    block = {
        f"stages.0.{i}.{part}" for i in (0, 1) for part in ("conv1", "conv2", "norm1", "norm2")
    }
    assert names == {"stem", "norm", *block}


@pytest.mark.parametrize("wrong", [{"depth": 19}, {"order": "v2"}, {"stages": 5}, {"stages": 0}])
def test_no_such_network(wrong: dict) -> None:
    with pytest.raises(ValueError, match="no such network"):
        ResNet(5, **wrong)


@torch.no_grad()
def test_items_do_not_see_each_other() -> None:
    network, x = _random().double(), torch.randn(3, 1, 200, dtype=torch.float64)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-9, atol=1e-9)


@NETWORKS
def test_initial_weights_are_he(depth: int, order: str) -> None:
    torch.manual_seed(0)
    for module in ResNet(5, 1, depth, order).modules():
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


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in network.state_dict().items()}


def _same(network: nn.Module, state: dict[str, Tensor], names: list[str]) -> bool:
    own = network.state_dict()
    return all(torch.equal(own[name], state[name]) for name in names)


def _fails(network: ResNet, state: dict[str, Tensor]) -> str:
    """The complaint about a state that does not fit; the network is as it was then."""
    before = _copy(network)
    with pytest.raises(ValueError, match="weights do not fit") as error:
        transfer(network, state)
    assert _same(network, before, list(before))
    return str(error.value)


def _first(state: dict[str, Tensor], starts: tuple[str, ...]) -> list[str]:
    return [name for name in state if name.startswith(starts)]


@NETWORKS
def test_transfer_takes_everything_but_the_head(depth: int, order: str) -> None:
    old, new = _random(ResNet(5, 1, depth, order), seed=1), ResNet(4, 1, depth, order)
    before = _copy(new)
    fate = transfer(new, old.state_dict())
    assert fate["new"] == fate["unused"] == ["head.weight", "head.bias"]
    assert fate["adapted"] == []
    assert sorted(fate["loaded"] + fate["new"]) == sorted(new.state_dict())
    assert _same(new, old.state_dict(), fate["loaded"])
    assert _same(new, before, fate["new"])


def test_transfer_between_a_classifier_and_an_encoder() -> None:
    old, new = _random(ResNet(5)), ResNet(None)
    fate = transfer(new, old.state_dict())
    assert (fate["new"], fate["unused"]) == ([], ["head.weight", "head.bias"])
    assert fate["loaded"] == list(new.state_dict())
    fate = transfer(ResNet(5), new.state_dict())
    assert (fate["new"], fate["unused"]) == (["head.weight", "head.bias"], [])


@torch.no_grad()
def test_twelve_leads_repeat_the_filters() -> None:
    old, new = _random(seed=1), ResNet(5, leads=12).eval()
    fate = transfer(new, old.state_dict())
    assert fate["adapted"] == ["stem.weight"]
    assert "stem.weight" not in fate["loaded"] + fate["new"]
    for lead in range(12):
        torch.testing.assert_close(new.stem.weight[:, lead] * 12, old.stem.weight[:, 0])
    x = torch.randn(2, 1, 300)
    same = new.features(x.expand(2, 12, 300))
    torch.testing.assert_close(same, old.features(x), rtol=1e-4, atol=1e-4)
    mixed = torch.randn(2, 12, 300)
    mean = old.features(mixed.mean(1, keepdim=True))
    torch.testing.assert_close(new.features(mixed), mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", [None, 3])
def test_transfer_from_future_prediction(head: int | None) -> None:
    model = _random(FuturePrediction(ResNet(head, stages=2), 3, layers=1))
    state = model.state_dict()
    new = ResNet(5, leads=12, stages=2)
    fate = transfer(new, state)
    assert fate["adapted"] == ["stem.weight"]
    assert fate["new"] == ["head.weight", "head.bias"]
    assert fate["unused"] == _first(state, ("pooling.", "encoder.head."))
    assert "pooling.token" in fate["unused"]
    assert ("encoder.head.bias" in fate["unused"]) == (head is not None)
    assert sorted(fate["loaded"] + fate["adapted"] + fate["new"]) == sorted(new.state_dict())
    assert _same(new, model.encoder.state_dict(), fate["loaded"])

    state["stem.weight"] = state["encoder.stem.weight"]
    state["encoder.extra"] = state["pooling.token"]
    complaint = _fails(new, state)
    assert "encoder.extra left over" in complaint
    assert "; stem.weight left over" in complaint
    del state["encoder.norm.bias"]
    assert "norm.bias missing" in _fails(new, state)
    pooling = {name: t for name, t in state.items() if name.startswith("pooling.")}
    assert "pooling.token left over" in _fails(new, pooling)


@NETWORKS
@pytest.mark.parametrize("future", [False, True])
def test_transfer_of_the_first_stages(depth: int, order: str, future: bool) -> None:
    old = _random(ResNet(None if future else 5, 1, depth, order, stages=3), seed=1)
    prefix = "encoder." if future else ""
    state = {prefix + name: t for name, t in old.state_dict().items()}
    new = ResNet(4, 1, depth, order)
    before = _copy(new)
    fate = transfer(new, state)
    assert fate["new"] == _first(before, ("stages.3.", "norm.", "head."))
    assert sorted(fate["unused"]) == sorted(_first(state, (f"{prefix}norm.", "head.")))
    assert bool(_first(state, (f"{prefix}norm.",))) == (order == "pre")
    assert fate["adapted"] == []
    assert fate["loaded"] == _first(before, ("stem", "stages.0.", "stages.1.", "stages.2."))
    assert _same(new, old.state_dict(), fate["loaded"])
    assert _same(new, before, fate["new"])


@torch.no_grad()
def test_first_stages_compute_what_they_did() -> None:
    old, new = _random(ResNet(None, 1, 50, stages=3), seed=1), ResNet(5, 1, 50).eval()
    transfer(new, old.state_dict())
    given = []
    for network in (old, new):
        network.stages[2].register_forward_hook(lambda _, x, out: given.append(out))
        network(torch.ones(1, 1, 100))
    assert torch.equal(*given)


def test_stages_that_are_no_clean_prefix_fail_by_name() -> None:
    network, whole = ResNet(5), ResNet(5).state_dict()
    three = ResNet(5, stages=3).state_dict()

    def without(state: dict[str, Tensor], start: str) -> dict[str, Tensor]:
        return {name: t for name, t in state.items() if not name.startswith(start)}

    # A stage left out in the middle, at the beginning, and a tensor left out of the last.
    assert "stages.1.0.conv1.weight missing" in _fails(network, without(three, "stages.1."))
    assert "stages.0.1.norm2.running_var missing" in _fails(network, without(three, "stages.0."))
    complaint = _fails(network, without(three, "stages.2.1.conv2."))
    assert complaint == "weights do not fit: stages.2.1.conv2.weight missing"
    # A whole network that lost its last stage is none of three stages: its final norm is wider.
    assert "norm.weight (512,) instead of (256,)" in _fails(network, without(whole, "stages.3."))
    assert "norm.bias missing" in _fails(network, without(three, "norm.bias"))
    # One tensor of the last stage is no last stage.
    part = {**without(whole, "stages.3."), "stages.3.0.norm1.bias": whole["stages.3.0.norm1.bias"]}
    assert "stages.3.0.norm1.weight missing" in _fails(network, part)
    # Nothing at all, and more stages than the network has.
    assert "stages.0.0.conv1.weight missing" in _fails(network, {})
    assert "stages.3.1.conv2.weight left over" in _fails(ResNet(5, stages=3), whole)
    assert "stages.x left over" in _fails(network, {**three, "stages.x": torch.zeros(1)})


@pytest.mark.parametrize("stages", [3, 4])
def test_other_orders_and_depths_fail_by_name(stages: int) -> None:
    pre, post = ResNet(5, stages=stages), ResNet(5, 1, 18, "post", stages)
    complaint = _fails(ResNet(5), post.state_dict())
    for part in (
        "stem_norm.weight left over",
        "stages.1.0.shortcut_norm.bias left over",
        "stages.1.0.norm1.weight (128,) instead of (64,)",
        "norm.running_mean missing",
    ):
        assert part in complaint
    complaint = _fails(ResNet(5, order="post"), pre.state_dict())
    for part in ("stem_norm.bias missing", "shortcut_norm.weight missing", "norm.bias left over"):
        assert part in complaint
    deep = ResNet(5, 1, 34, stages=stages).state_dict()
    assert "stages.0.2.conv1.weight left over" in _fails(ResNet(5), deep)
    assert "stages.0.2.conv1.weight missing" in _fails(ResNet(5, 1, 34), pre.state_dict())
    assert "stages.0.0.conv3.weight missing" in _fails(ResNet(5, 1, 50), deep)


def test_misfits_fail_by_name_and_change_nothing() -> None:
    network = ResNet(5)
    state = dict(ResNet(5).state_dict())
    state["stages.1.0.conv1.weight"] = state["stages.1.0.conv1.weight"][..., :3]
    del state["norm.bias"]
    state["extra.weight"] = torch.zeros(3)
    complaint = _fails(network, state)
    for part in (
        "stages.1.0.conv1.weight (128, 64, 1, 3) instead of (128, 64, 1, 5)",
        "norm.bias missing",
        "extra.weight left over",
    ):
        assert part in complaint
    assert "stem.weight" in _fails(network, ResNet(5, leads=2).state_dict())
