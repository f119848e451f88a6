"""A user's own files with the oddities that real ones have: read as meant, or refused by name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ecgpipe.errors import BadRecord
from ecgpipe.inference.inputs import InputFormat, read_recording
from ecgpipe.loading.recordings import Label, Recordings
from ecgpipe.training.examples import save_examples

FS = 250
TRACE = np.random.default_rng(3).normal(0, 0.3, 500).round(3)
TIMES = np.arange(500) / FS


def _table(path: Path, *columns: np.ndarray, names: str = "", end: str = "") -> Path:
    lines = [",".join(f"{value:g}" for value in row) + end for row in zip(*columns, strict=True)]
    path.write_text("\n".join([names + end] * bool(names) + lines) + "\n")
    return path


@pytest.mark.parametrize(
    "name", ["time", "Time (s)", "'Elapsed time'", "Elapsed time (s)", "timestamp", "time_ms"]
)
def test_times_are_no_lead_and_give_the_rate(name: str, tmp_path: Path) -> None:
    times = TIMES * (1000 if "ms" in name else 1)
    record = read_recording(_table(tmp_path / "a.csv", times, TRACE, names=f"{name},'ECG'"))
    assert (record.fs, record.leads) == (FS, ("ECG",))
    np.testing.assert_allclose(record.millivolts()[0], TRACE, atol=1e-6)


@pytest.mark.parametrize("names", ["", "clock,ECG"])
def test_what_rises_all_the_time_is_no_lead(names: str, tmp_path: Path) -> None:
    path = _table(tmp_path / "a.csv", TIMES + 7, TRACE, names=names)
    with pytest.raises(BadRecord, match=rf"column {names.partition(',')[0] or 1} rises from line"):
        read_recording(path, InputFormat(fs=FS))


@pytest.mark.parametrize("names", ["", "I,II"])
def test_a_comma_behind_the_last_column(names: str, tmp_path: Path) -> None:
    path = _table(tmp_path / "a.csv", TRACE, -TRACE, names=names, end=",")
    record = read_recording(path, InputFormat(fs=FS))
    assert record.samples == 500 and len(record.leads) == 2
    np.testing.assert_allclose(record.millivolts(), [TRACE, -TRACE], atol=1e-6)


@pytest.mark.parametrize("fs", [0, -250, np.nan, np.inf])
@pytest.mark.parametrize("suffix", [".npz", ".mat"])
def test_a_rate_that_is_none(fs: float, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    save = np.savez if suffix == ".npz" else lambda file, **arrays: savemat(file, arrays)
    save(path, signal=TRACE, fs=fs)
    with pytest.raises(BadRecord, match=r"says a sampling rate of .* Hz; mend it in the file"):
        read_recording(path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    savemat(tmp_path / "whole.mat", {"signal": TRACE, "fs": FS}, do_compression=True)
    whole = (tmp_path / "whole.mat").read_bytes()
    np.savez_compressed(tmp_path / "whole.npz", signal=np.tile(TRACE, 40), fs=FS)
    packed = bytearray((tmp_path / "whole.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "whole.npz") as archive:
        start = archive.getinfo("signal.npy").header_offset
    packed[start + 200 : start + 260] = bytes(60)
    cases = {f"cut{n}.mat": whole[:n] for n in (0, 100, 200, len(whole) - 20)}
    for name, content in {**cases, "damaged.npz": bytes(packed)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadRecord, match=rf"{name}: no readable (MATLAB|NumPy) file"):
            read_recording(tmp_path / name, InputFormat(fs=FS))


def test_examples_of_recordings_without_a_class(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", TRACE)
    record = read_recording(tmp_path / "a.npy", InputFormat(fs=FS))
    labels: dict[str, Label] = {"a": (), "b": (1,), "c": (0, 2), "d": ()}
    records = dict.fromkeys(labels, record)
    recordings = Recordings(records, {}, labels, ("A", "B", "C"), FS, record.leads, [])
    save_examples(tmp_path / "examples.npz", recordings, sorted(labels), None, each=1)
    with np.load(tmp_path / "examples.npz") as saved:
        keys = list(saved["keys"])
    assert len(keys) == 3 and {"b", "c"} < set(keys)
