"""Settings: where they come from, what is refused, and what makes two of them the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from ecgpipe import config
from ecgpipe.config import FinetuneSettings, PretrainSettings, Settings, load
from ecgpipe.errors import EcgpipeError

KINDS = (PretrainSettings, FinetuneSettings)
TOML = "epochs = 3\nbatch = 16\nseed = 1\n[optimiser]\nlr = 0.5\nbeta1 = 0.7\n"


def _files(folder: Path) -> dict[str, Path]:
    tree = {"epochs": 3, "batch": 16, "seed": 1, "optimiser": {"lr": 0.5, "beta1": 0.7}}
    texts = {
        "s.toml": TOML,
        "s.json": json.dumps(tree),
        "run.json": json.dumps({"kind": "pretrain", "settings": tree, "digest": "0"}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {name: folder / name for name in texts}


@pytest.mark.parametrize("name", ["s.toml", "s.json", "run.json"])
@pytest.mark.parametrize("kind", KINDS)
def test_later_sources_win(tmp_path: Path, name: str, kind: type[Settings]) -> None:
    file = _files(tmp_path)[name]
    got: Any = load(kind, file, ["batch=32", "optimiser.lr=0.25", "seed=2"], seed=4, epochs=None)
    assert (got.epochs, got.batch, got.seed) == (3, 32, 4)
    assert (got.optimiser.lr, got.optimiser.beta1, got.optimiser.beta2) == (0.25, 0.7, 0.999)
    assert got.network.depth == 18


def test_files_of_all_kinds_say_the_same(tmp_path: Path) -> None:
    assert len({repr(load(PretrainSettings, file)) for file in _files(tmp_path).values()}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_says_settings_that_make_it_again(tmp_path: Path, kind: type[Settings]) -> None:
    settings = load(kind, None, ["optimiser.lr=0.1", "epochs=7"])
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings.model_dump()}))
    assert load(kind, tmp_path / "run.json") == settings


@pytest.mark.parametrize("key", ["frames", "optimiser.lrate", "network.width", ""])
def test_unknown_key_names_the_known_ones(tmp_path: Path, key: str) -> None:
    with pytest.raises(EcgpipeError) as error:
        load(PretrainSettings, None, [f"{key}=1"])
    message = str(error.value)
    assert f"unknown setting {key}" in message
    assert all(known in message for known, *_ in config.describe(PretrainSettings))


def test_unknown_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("repeats = 3\n")
    with pytest.raises(EcgpipeError, match=r"a\.toml: unknown setting repeats"):
        load(PretrainSettings, tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("item", "key"),
    [
        ("epochs=many", "epochs"),
        ("epochs=1.5", "epochs"),
        ("epochs=0", "epochs"),
        ("batch=1", "batch"),
        ("seed=-1", "seed"),
        ("frame=31", "frame"),
        ("validation_share=1", "validation_share"),
        ("validation_share=0", "validation_share"),
        ("optimiser.lr=0", "optimiser.lr"),
        ("optimiser.lr=nan", "optimiser.lr"),
        ("optimiser.lr=inf", "optimiser.lr"),
        ("optimiser.beta2=1", "optimiser.beta2"),
        ("precision=fp8", "precision"),
        ("network.depth=35", "network.depth"),
        ("task=rhythms", "task"),
        ("frame.x=3", "frame"),
        ("optimiser=3", "optimiser"),
    ],
)
def test_wrong_values_are_refused_by_name(item: str, key: str) -> None:
    with pytest.raises(EcgpipeError, match=rf"setting {key}: "):
        load(PretrainSettings, None, [item])


def test_assignment_mistakes() -> None:
    with pytest.raises(EcgpipeError, match=r"--set epochs: write it as key=value"):
        load(PretrainSettings, None, ["epochs"])
    with pytest.raises(EcgpipeError, match="epochs is a value"):
        load(PretrainSettings, None, ["epochs=3", "epochs.x=3"])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("missing.toml", None),
        ("broken.toml", b"epochs = = 3"),
        ("broken.json", b"{"),
        ("list.json", b"[1]"),
        ("binary.toml", b"\xff\xfe\x00"),
        ("run.json", b'{"settings": [1]}'),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(EcgpipeError, match=name.replace(".", r"\.")):
        load(PretrainSettings, tmp_path / name)
    with pytest.raises(EcgpipeError, match=name.replace(".", r"\.")):
        load(PretrainSettings, tmp_path / name, ["epochs=3"])


def test_frozen() -> None:
    settings = PretrainSettings()
    for target, name in ((settings, "epochs"), (settings.optimiser, "lr")):
        with pytest.raises(ValidationError):
            setattr(target, name, 1)


def _leaves(kind: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, field in kind.model_fields.items():
        inner = field.annotation
        nested = isinstance(inner, type) and issubclass(inner, BaseModel)
        found |= _leaves(inner, f"{prefix}{name}.") if nested else {prefix + name}
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_describe_lists_every_key_with_its_default_and_meaning(kind: type[Settings]) -> None:
    rows = config.describe(kind)
    assert {key for key, *_ in rows} == _leaves(kind)
    assert len(rows) == len(_leaves(kind))
    tree = kind().model_dump()
    for key, default, text in rows:
        value: Any = tree
        for name in key.split("."):
            value = value[name]
        assert value == default
        assert text


@pytest.mark.parametrize("kind", KINDS)
def test_every_listed_setting_can_be_set_to_its_default(kind: type[Settings]) -> None:
    assert load(kind, None, [f"{key}={default}" for key, default, _ in config.describe(kind)]) == (
        kind()
    )


def test_defaults_are_the_papers() -> None:
    up, down = PretrainSettings(), FinetuneSettings()
    assert (up.frame, up.fs, up.validation_share, up.frames_per_visit) == (2048, 250, 0.05, 4096)
    assert (down.epochs, down.patience, down.repeats, down.seconds) == (200, 50, 10, 60)
    assert (down.train_share, down.validation_share, down.test_share) == (None, 0.05, 0.20)
    adam = up.optimiser
    assert (adam.lr, adam.beta1, adam.beta2, adam.eps) == (1e-3, 0.9, 0.999, 1e-8)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def _reversed(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _reversed(tree[key]) for key in reversed(tree)}
    return [_reversed(item) for item in tree] if isinstance(tree, list) else tree


@given(VALUES)
def test_digest_does_not_depend_on_key_order(tree: Any) -> None:
    assert config.digest(tree) == config.digest(_reversed(tree))
    assert json.loads(config.canonical(tree)) == tree


def test_digest_depends_on_everything_else() -> None:
    base = PretrainSettings().model_dump()
    changed = [{**base, "epochs": 21}, {**base, "network": {"depth": 34}}, {"settings": base}]
    assert len({config.digest(tree) for tree in [base, *changed]}) == 4
    assert config.digest([1, 2]) != config.digest([2, 1])
