"""Future prediction against plain statements of attention pooling and of the scores."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgpipe.models.future import AttentionPooling, FuturePrediction, positions
from ecgpipe.models.resnet import ResNet


def _pooling(scale: str = "head", width: int = 32, layers: int = 3) -> AttentionPooling:
    """Attention pooling in which nothing is at its initial value, in double precision."""
    torch.manual_seed(0)
    pooling = AttentionPooling(width, layers, heads=8, scale=scale).double()
    for name, parameter in pooling.named_parameters():
        if name.endswith("bias") or "norm" in name:
            nn.init.uniform_(parameter, -0.5, 1.5)
    return pooling


def _model(context: int = 3) -> FuturePrediction:
    torch.manual_seed(1)
    return FuturePrediction(ResNet(None, stages=1), context).double().eval()


def _frames(items: int, context: int = 3, samples: int = 40) -> Tensor:
    return torch.randn(items, context + 1, samples, dtype=torch.float64)


def _plainly(pooling: AttentionPooling, x: Tensor, divisor: float) -> Tensor:
    """Vaswani et al., sections 3.1 to 3.5, for one item (N, width), position by position."""
    width = x.shape[1]
    x = torch.cat([pooling.token[None], x]) * math.sqrt(width)
    for place in range(len(x)):
        for i in range(width):
            angle = place / 10_000 ** (2 * (i // 2) / width)
            x[place, i] += math.cos(angle) if i % 2 else math.sin(angle)
    for layer in pooling.layers:
        query, key, value = (
            (x @ part.weight.T + part.bias).reshape(len(x), 8, width // 8)
            for part in (layer.query, layer.key, layer.value)
        )
        weight = torch.exp(torch.einsum("qhc,khc->hqk", query, key) / divisor)
        weight = weight / weight.sum(2, keepdim=True)
        mixed = torch.einsum("hqk,khc->qhc", weight, value).reshape(len(x), width)
        x = _norm(x + mixed @ layer.out.weight.T + layer.out.bias, layer.norm1)
        inner = (x @ layer.linear1.weight.T + layer.linear1.bias).clamp(min=0)
        x = _norm(x + inner @ layer.linear2.weight.T + layer.linear2.bias, layer.norm2)
    return x[0]


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    x = x - x.mean(1, keepdim=True)
    return x / ((x**2).mean(1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


@pytest.mark.parametrize(("scale", "divisor"), [("head", 2.0), ("model", math.sqrt(32))])
@torch.no_grad()
def test_pooling_is_what_the_papers_say(scale: str, divisor: float) -> None:
    pooling = _pooling(scale)
    x = torch.randn(4, 8, 32, dtype=torch.float64)
    wanted = torch.stack([_plainly(pooling, item, divisor) for item in x])
    torch.testing.assert_close(pooling(x), wanted, rtol=1e-9, atol=1e-9)
    other = _pooling("model" if scale == "head" else "head")
    other.load_state_dict(pooling.state_dict())
    assert (other(x) - wanted).abs().max() > 1e-3


@torch.no_grad()
def test_layers_are_pytorchs_own() -> None:
    for layer in _pooling().layers:
        own = nn.TransformerEncoderLayer(32, 8, 64, dropout=0, batch_first=True).double()
        projections = (layer.query, layer.key, layer.value)
        own.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in projections]))
        own.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in projections]))
        own.self_attn.out_proj.load_state_dict(layer.out.state_dict())
        for name in ("linear1", "linear2", "norm1", "norm2"):
            getattr(own, name).load_state_dict(getattr(layer, name).state_dict())
        x = torch.randn(3, 5, 32, dtype=torch.float64)
        torch.testing.assert_close(layer(x), own(x), rtol=1e-9, atol=1e-9)


def test_size_of_the_pooling() -> None:
    width, count = 512, sum(p.numel() for p in AttentionPooling(512).parameters())
    attention, inner = 4 * (width**2 + width), 2 * width * 2 * width + 3 * width
    assert count == width + 3 * (attention + inner + 4 * width)
    with pytest.raises(ValueError, match="'root' is neither 'head' nor 'model'"):
        AttentionPooling(512, scale="root")


def test_positions() -> None:
    table = positions(17, 64, torch.zeros(1))
    assert table.shape == (17, 64)
    assert table.dtype == torch.float32
    assert torch.equal(table[0], torch.tensor([0.0, 1.0] * 32))
    assert float(table[16, 0]) == pytest.approx(math.sin(16), abs=1e-5)
    assert float(table[16, 63]) == pytest.approx(math.cos(16 / 10_000 ** (62 / 64)), abs=1e-6)


@torch.no_grad()
def test_order_of_the_context_matters() -> None:
    pooling, x = _pooling(), torch.randn(2, 4, 32, dtype=torch.float64)
    for order in ([1, 0, 2, 3], [0, 1, 3, 2], [3, 2, 1, 0]):
        assert ((pooling(x[:, order]) - pooling(x)).abs().amax(1) > 1e-4).all()


@torch.no_grad()
def test_scores_are_dot_products() -> None:
    model, x = _model(), _frames(5)
    candidates = torch.tensor([[3, 0, 19], [11, 7, 2], [11, 11, 3], [14, 15, 4], [1, 19, 18]])
    scores = model(x, candidates)
    assert scores.shape == (5, 3)
    for item in range(5):
        context = model.encoder.features(x[item, :3, None])
        vector = model.pooling(context[None])[0]
        for place in range(3):
            number = int(candidates[item, place])
            frame = x[number // 4, number % 4]
            wanted = float(vector @ model.encoder.features(frame[None, None])[0])
            assert float(scores[item, place]) == pytest.approx(wanted, rel=1e-9)
    order = [2, 0, 1]
    assert torch.equal(model(x, candidates[:, order]), scores[:, order])


@torch.no_grad()
def test_every_frame_is_encoded_once() -> None:
    model, shapes = _model(), []
    model.encoder.stem.register_forward_hook(lambda _, x, out: shapes.append(x[0].shape))
    model(_frames(5), torch.zeros(5, 9, dtype=torch.int64))
    assert shapes == [(20, 1, 1, 40)]


@torch.no_grad()
def test_items_see_each_other_through_candidates_alone() -> None:
    model, x = _model(), _frames(3)
    candidates = torch.tensor([[3, 7], [7, 3], [11, 3]])  # only the first two meet
    before = model(x, candidates)
    changed = x.clone()
    changed[1] += 1
    after = model(changed, candidates)
    same = (after - before).abs() < 1e-9
    assert same.tolist() == [[True, False], [False, False], [True, True]]


@torch.no_grad()
def test_the_positive_is_no_context() -> None:
    model, x = _model(), _frames(2)
    candidates = torch.tensor([[0], [4]])
    before = model(x, candidates)
    x[:, 3] += 1
    torch.testing.assert_close(model(x, candidates), before)
    x[:, 2] += 1
    assert ((model(x, candidates) - before).abs() > 1e-6).all()


def test_wrong_number_of_frames() -> None:
    with pytest.raises(ValueError, match=r"5 frames an item instead of 3 \+ 1"):
        _model()(_frames(2, context=4), torch.zeros(2, 2, dtype=torch.int64))


def test_gradients_reach_everything() -> None:
    model = _model().train()
    scores = model(_frames(4), torch.tensor([[3, 7], [7, 11], [11, 15], [15, 3]]))
    F.cross_entropy(scores, torch.zeros(4, dtype=torch.int64)).backward()
    for name, parameter in model.named_parameters():
        # A key's bias shifts all logits of a query alike, which softmax does not see.
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().max() > 1e-9) != name.endswith("key.bias"), name
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {
        "encoder",
        "pooling",
    }


@torch.no_grad()
def test_autocast_does_not_round_the_scores() -> None:
    torch.manual_seed(0)
    model = FuturePrediction(ResNet(None), 3).eval()
    x, candidates = torch.randn(4, 4, 256), torch.tensor([[3, 7], [7, 11], [11, 15], [15, 3]])
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(x, candidates)
        encoded = model.encoder.features(x.flatten(0, 1)[:, None])
        pooled = model.pooling(encoded.unflatten(0, (4, 4))[:, :3])
    assert (encoded.dtype, scores.dtype) == (torch.bfloat16, torch.float32)
    wanted = torch.einsum("bw,bkw->bk", pooled.double(), encoded[candidates].double())
    torch.testing.assert_close(scores.double(), wanted, rtol=1e-4, atol=1e-4)


def test_sixteen_items_can_be_learnt_by_heart() -> None:
    torch.manual_seed(0)
    items, context = 16, 4
    x = torch.randn(items, context + 1, 64)
    own = torch.arange(items) * (context + 1) + context
    candidates = torch.stack([own.roll(-i) for i in range(5)], 1)  # the positive, four negatives
    target = torch.randint(0, 5, (items,))
    for item, place in enumerate(target.tolist()):
        candidates[item] = candidates[item].roll(place)
    assert torch.equal(candidates[torch.arange(items), target], own)
    model = FuturePrediction(ResNet(None, stages=2), context)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(model(x, candidates), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.5
    assert losses[-1] < 0.01
