"""What the pages of a run show of a step, and that no page can end one."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import pytest

from flows import artifacts  # before Prefect: they settle its defaults

from prefect.client.orchestration import get_client  # isort: skip

from run_folders import finetune as finetuned

from ecgpipe.reports.summary import summary
from flows.page import page_text
from flows.prepare import prepare
from flows.shard import shard


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("prepare mitdb: 3/12 parts  p00100", 3 / 12),
        ("shard cinc2017: 18/18 parts  p0", 1.0),
        ("pretrain beat epoch 3/20: 250/1000 updates  loss 0.412, 9 left", (2 + 0.25) / 20),
        ("pretrain heart_rate: epoch 3/20  loss 0.4  accuracy 0.8", 3 / 20),
        ("finetune beat 2/10 epoch 3/200: 12/90 updates  loss .3", (1 + (2 + 12 / 90) / 200) / 10),
        ("finetune random 10/10: epoch 200/200  loss 0.1", 1.0),
        ("prepare mitdb: 3 of 12 parts were there already", None),
        ("prepare mitdb: 0/0 parts", None),
        ("ecgpipe: runs/1/2: no such folder", None),
        ("refused A00001: 3/4 of it is missing", None),
        ("runs/finetune/1/2: finished already", None),
    ],
)
def test_a_line_says_how_much_of_a_step_is_done(line, part):
    assert artifacts.done_share(line) == (part if part is None else pytest.approx(part))


def test_artifacts_are_named_after_what_a_step_makes():
    assert artifacts.key_of("data/archive/mitdb") == "data-archive-mitdb"
    assert artifacts.key_of("/srv/ecg/Demo/runs/beat_2048 (1)") == "demo-runs-beat-2048-1"
    assert artifacts.key_of("demo/report.html") == "demo-report-html"
    assert artifacts.key_of("s3://bucket/ecg/archive/mitdb/") == "ecg-archive-mitdb"


def shown(key: str) -> list[tuple[str, str]]:
    """Data and description of all artifacts of a key."""
    with get_client(sync_client=True) as client:
        found = [artifact for artifact in client.read_artifacts() if artifact.key == key]
    return [(artifact.data, artifact.description) for artifact in found]


def test_progress_and_page_are_made_once_and_kept_up_to_date(
    server, stand_in, tmp_path, monkeypatch
):
    monkeypatch.setattr(artifacts, "PROGRESS_INTERVAL", 0)
    monkeypatch.setattr(artifacts, "PAGE_INTERVAL", 0)
    seen: list[tuple[str, str]] = []
    keep = artifacts.StepArtifacts.update

    def update(self, line):
        keep(self, line)
        seen.extend(shown(self.progress.key))

    monkeypatch.setattr(artifacts.StepArtifacts, "update", update)
    stand_in("for i in 1 2 3 4; do echo prepare mitdb: $i/4 parts  p$i; done; echo 48 records")
    out = tmp_path / "progress" / "mitdb"
    assert prepare("mitdb", "raw", out, return_state=True).is_completed()
    assert [float(data) for data, _ in seen] == [25, 50, 75, 100, 100]
    assert seen[0][1] == "prepare mitdb: 1/4 parts p1"
    key = artifacts.key_of(str(out))
    ((data, about),) = shown(f"{key}-progress")
    assert (float(data), about) == (100, "done")
    ((page, about),) = shown(key)
    assert about == "Completed: 48 records"
    assert "ecgpipe prepare mitdb raw" in page


def test_no_page_is_worth_the_end_of_a_step(server, stand_in, tmp_path, monkeypatch):
    def away(**kwargs):
        raise OSError("the server is away")

    monkeypatch.setattr(artifacts, "KINDS", dict.fromkeys(artifacts.KINDS, away))
    stand_in("echo prepare mitdb: 1/4 parts; exit 0")
    assert prepare("mitdb", "raw", tmp_path / "archive", return_state=True).is_completed()


def test_a_page_that_cannot_be_drawn_ends_no_step(server, stand_in, tmp_path):
    out = tmp_path / "undrawn" / "mitdb"
    stand_in(
        f"mkdir -p {out}; echo '[]' > {out}/manifest.json;"  # of a kind that no page is ready for
        "echo prepare mitdb: 1/4 parts; sleep 1; echo 48 records"
    )
    state = prepare("mitdb", "raw", out, return_state=True)
    assert state.is_completed() and state.message == "48 records"
    ((data, _),) = shown(f"{artifacts.key_of(str(out))}-progress")
    assert float(data) == 100
    with pytest.raises(TypeError):
        page_text("ecgpipe prepare", out)


def test_the_page_of_a_training_shows_its_curves_and_its_result(tmp_path):
    finetuned(tmp_path / "run", repeats=2, epochs=200, finished=(0, 1))
    columns = (
        "epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,"
        "validation_macro_f1,items_per_second,waited,seconds\n"
    )
    for number in range(2):
        rows = [f"{n},{1 / n},{1 - 1 / n},{2 / n},.5,.{n}25,9,0,{n}\n" for n in range(1, 6)]
        (tmp_path / "run" / f"repeat-{number:02d}" / "history.csv").write_text(
            columns + "".join(rows)
        )
    page = page_text("ecgpipe finetune", tmp_path / "run")
    assert summary(tmp_path / "run").partition(": ")[2].replace("~", r"\~") in page
    assert "| 2 | 5 of 200 | 0.200 | 0.400 | 0.800 | 0.525 | 3 |" in page
    assert f"- `{tmp_path}/run/run.json`" in page
    images = re.findall(r"!\[curves\]\(data:image/svg\+xml;base64,([\w+/=]+)\)", page)
    for image, words in zip(images, (("loss", "validation"), ("macro F1",)), strict=True):
        text = base64.b64decode(image).decode()
        svg = ElementTree.fromstring(text)
        assert svg.tag == "{http://www.w3.org/2000/svg}svg" and svg.get("width") == "422.4"
        text = " ".join(svg.itertext())
        assert (
            all(word in text for word in words) and "var(" not in base64.b64decode(image).decode()
        )


def test_a_page_is_written_of_a_folder_in_the_making(tmp_path):
    assert page_text("ecgpipe prepare", tmp_path / "none").count("\n- `") == 1
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "manifest.json").write_text('{"totals": {')
    assert "ecgpipe finetune" in page_text("ecgpipe finetune", tmp_path)


def test_stores_and_runs_may_lie_behind_urls(server, stand_in, tmp_path):
    stand_in(f'echo "$@" > {tmp_path}/said; echo "it is there"')
    state = shard("memory://ecg/archive/mitdb", "memory://ecg/shards/mitdb", return_state=True)
    assert state.is_completed() and state.message == "it is there"
    said = (tmp_path / "said").read_text()
    assert "shard memory://ecg/archive/mitdb memory://ecg/shards/mitdb" in said
    ((page, _),) = shown("ecg-shards-mitdb")
    assert "- `memory://ecg/shards/mitdb`" in page
    state = shard("memory://a", "nonsense://b/c", return_state=True)
    assert state.is_failed() and "nonsense://b/c" in state.message
