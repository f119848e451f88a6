"""Tiny databases in the files of the real ones, with samples that say where they come from."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import wfdb
from numpy.typing import NDArray

from ecgpipe.storage.sidecar import RecordRow
from ecgpipe.types import Record

ICENTIA_GAIN = 74.36482269503546
Rows = list[tuple[int, str, str]]  # sample, symbol, note of each annotation


def coded(patient: int, segment: int, samples: int, lead: int = 0) -> NDArray[np.int16]:
    """Values that differ in neighbours, patients, segments and leads, over nearly all of int16."""
    index = np.arange(samples, dtype=np.int64)
    code = index * 31 + segment * 9_973 + patient * 4_099 + lead * 27_191
    return (code % 60_001 - 30_000).astype(np.int16)


def annotate(folder: Path, record: str, rows: Rows, fs: float) -> None:
    """Write ``record.atr``."""
    samples, symbols, notes = zip(*rows, strict=True)
    wfdb.wrann(
        record,
        "atr",
        np.array(samples),
        list(symbols),
        aux_note=list(notes),
        fs=fs,
        write_dir=str(folder),
    )


def icentia(
    root: Path,
    patient: int,
    segment: int,
    signal: NDArray[np.int16] | int = 1000,
    rows: Rows | None = None,
    units: str = "mV",
) -> Path:
    """One segment of Icentia11k, format 16; returns its path without extension."""
    if isinstance(signal, int):
        signal = coded(patient, segment, signal)
    name = f"p{patient:05d}"
    record = f"{name}_s{segment:02d}"
    folder = root / name[:3] / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{record}.dat").write_bytes(signal.astype("<i2").tobytes())
    checksum = int(signal.sum(dtype=np.int64)) % 65536
    (folder / f"{record}.hea").write_text(
        f"{record} 1 250 {len(signal)}\n"
        f"{record}.dat 16 {ICENTIA_GAIN}(0)/{units} 16 0 {signal[0]} {checksum} 0 ecg\n"
    )
    if rows is not None:
        annotate(folder, record, rows, 250)
    return folder / record


def icentia_rows(samples: int, step: int = 100) -> Rows:
    """A beat of each kind in turn, inside one rhythm; a plain beat has the note ``None``."""
    at = range(7, samples, step)
    beats = [(t, "NSaVQ"[i % 5], "None") for i, t in enumerate(at)]
    return [beats[0], (at[0], "+", "(N"), *beats[1:], (at[-1], "+", ")")]


def small(root: Path) -> Path:
    """Five patients of Icentia11k, seven segments, not all annotated."""
    for patient, segment in ((0, 0), (0, 2), (1, 0), (2, 1), (3, 0), (3, 1), (4, 0)):
        rows = icentia_rows(900) if segment < 2 else None
        icentia(root, patient, segment, 900 + 10 * patient, rows)
    return root


def held(file: Path) -> Callable[[], None]:
    """Put a pipe in the place of a file, so that whoever reads it waits; gives the way back."""
    content = file.read_bytes()
    file.unlink()
    os.mkfifo(file)

    def release() -> None:
        file.unlink()
        file.write_bytes(content)

    return release


def mitdb(
    root: Path,
    record: str,
    leads: tuple[str, ...] = ("MLII", "V5"),
    samples: int = 2000,
    rows: Rows | None = None,
) -> NDArray[np.int16]:
    """One record of MIT-BIH, format 212 (12 bits); returns its signal, (leads, samples)."""
    root.mkdir(parents=True, exist_ok=True)
    codes = [coded(int(record), 0, samples, lead) for lead in range(len(leads))]
    signal = (np.stack(codes).astype(np.int64) % 4095 - 2047).astype(np.int16)
    many = len(leads)
    wfdb.wrsamp(
        record,
        fs=360,
        units=["mV"] * many,
        sig_name=list(leads),
        d_signal=signal.T.astype(np.int64),
        fmt=["212"] * many,
        adc_gain=[200.0] * many,
        baseline=[1024] * many,
        write_dir=str(root),
    )
    annotate(root, record, rows or [(18, "+", "(N"), (77, "N", ""), (370, "V", "")], 360)
    return signal


def cinc(
    root: Path,
    number: int,
    signal: NDArray[np.int16] | int = 900,
    label: str | None = "N",
    reference: str = "REFERENCE-v3.csv",
) -> NDArray[np.int16]:
    """One record of CinC 2017, MATLAB v4 with a header, its label behind the others'."""
    root.mkdir(parents=True, exist_ok=True)
    if isinstance(signal, int):
        signal = coded(number, 0, signal)
    record = f"A{number:05d}"
    scipy.io.savemat(root / f"{record}.mat", {"val": signal[None]}, format="4")
    (root / f"{record}.hea").write_bytes(
        f"{record} 1 300 {len(signal)} 05:05:15 1/05/2000 \r\n"
        f"{record}.mat 16+24 1000/mV 16 0 {signal[0]} 0 0 ECG \r\n".encode()
    )
    if label is not None:
        with (root / reference).open("a") as file:
            file.write(f"{record},{label}\n")
    return signal


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, hidden ones too, and the empty folders."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def equal(a: Any, b: Any) -> None:
    """Two records are the same, to the last sample and mark."""
    for name in ("key", "patient", "fs", "leads", "statements", "fold"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("signal", "gain", "baseline"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)
    assert a.signal.dtype == b.signal.dtype == np.int16
    assert (a.beats is None) == (b.beats is None)
    for name in ("beats", "rhythms", "qrs"):
        if (one := getattr(a, name)) is not None:
            other = getattr(b, name)
            np.testing.assert_array_equal(one.index, other.index, name)
            np.testing.assert_array_equal(one.label, other.label, name)


Damage = Callable[[Path], object]


def cut(name: str, count: int) -> Damage:
    def damage(root: Path) -> None:
        (file,) = root.rglob(name)
        file.write_bytes(file.read_bytes()[:-count])

    return damage


def remove(name: str) -> Damage:
    return lambda root: next(root.rglob(name)).unlink()


def write(name: str, text: str) -> Damage:
    return lambda root: next(root.rglob(name)).write_text(text)


def replace(name: str, old: str, new: str) -> Damage:
    def damage(root: Path) -> None:
        (file,) = root.rglob(name)
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return damage


def sidecars(store: Path) -> dict[str, int]:
    """When each finished part of a store was written, ns."""
    return {path.stem: path.stat().st_mtime_ns for path in (store / "parts").glob("*.json")}


TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
PTBXL_COLUMNS = (
    "ecg_id,patient_id,age,sex,height,weight,nurse,site,device,recording_date,report,scp_codes,"
    "heart_axis,infarction_stadium1,infarction_stadium2,validated_by,second_opinion,"
    "initial_autogenerated_report,validated_by_human,baseline_drift,static_noise,burst_noise,"
    "electrodes_problems,extra_beats,pacemaker,strat_fold,filename_lr,filename_hr"
)
# Code: diagnostic, form, rhythm, diagnostic class and subclass, as in the real table and its order.
SCP = {
    "NDT": (1, 1, 0, "STTC", "STTC"), "NST_": (1, 1, 0, "STTC", "NST_"),
    "NORM": (1, 0, 0, "NORM", "NORM"), "IMI": (1, 0, 0, "MI", "IMI"), "AMI": (1, 0, 0, "MI", "AMI"),
    "LVH": (1, 0, 0, "HYP", "LVH"), "1AVB": (1, 0, 0, "CD", "_AVB"),
    "LAO/LAE": (1, 0, 0, "HYP", "LAO/LAE"), "ABQRS": (0, 1, 0, "", ""), "PVC": (0, 1, 0, "", ""),
    "LVOLT": (0, 1, 0, "", ""), "PRC(S)": (0, 1, 0, "", ""),
    **{code: (0, 0, 1, "", "") for code in (
        "SR", "AFIB", "STACH", "SARRH", "SBRAD", "PACE", "SVARR", "BIGU", "AFLT", "SVTAC", "PSVT",
        "TRIGU",
    )},
}  # fmt: skip


def twelve(number: int, samples: int, kind: int = 0) -> NDArray[np.int16]:
    """Twelve leads that are told apart, (leads, samples)."""
    return np.stack([coded(number, kind, samples, lead) for lead in range(12)])


def ptbxl(
    root: Path,
    number: int,
    codes: str = "{'NORM': 100.0, 'SR': 0.0}",
    patient: str = "",
    fold: str = "3",
    rates: tuple[int, ...] = (500,),
    samples: int = 60,
    row: bool = True,
) -> None:
    """One recording of PTB-XL, format 16, with its row in the table; and the table of codes."""
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "scp_statements.csv").exists():
        lines = [",description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass"]
        for code, (*kinds, group, subgroup) in SCP.items():
            numbers = ",".join("1.0" if kind else "" for kind in kinds)
            lines.append(f'{code},"what, in words",{numbers},{group},{subgroup}')
        (root / "scp_statements.csv").write_text("\n".join(lines) + "\n")
    table = root / "ptbxl_database.csv"
    if not table.exists():
        table.write_text(PTBXL_COLUMNS + "\n")
    paths = {}
    for rate, short in ((100, "lr"), (500, "hr")):
        record = f"{number:05d}_{short}"
        folder = f"records{rate}/{number // 1000 * 1000:05d}"
        paths[rate] = f"{folder}/{record}"
        if rate not in rates:
            continue
        (root / folder).mkdir(parents=True, exist_ok=True)
        signal = twelve(number, samples, rate)
        (root / folder / f"{record}.dat").write_bytes(signal.T.astype("<i2").tobytes())
        lines = [f"{record} 12 {rate} {samples}"]
        for name, lead in zip(TWELVE, signal, strict=True):
            checksum = int(lead.sum(dtype=np.int64)) % 65536
            lines.append(f"{record}.dat 16 1000.0(0)/mV 16 0 {lead[0]} {checksum} 0 {name.upper()}")
        (root / folder / f"{record}.hea").write_text("\n".join(lines) + "\n")
    if row:
        who = patient or f"{20_000 + number}.0"
        cells = [f'{number},{who},56.0,1,,63.0,2.0,0.0,CS-12   E,1984-11-09 09:17:34,"sinus,\nja"']
        cells += [f'"{codes}"', *[""] * 4, "False", "False", "True", *[""] * 6]
        with table.open("a") as file:
            file.write(",".join([*cells, fold, paths[100], paths[500]]) + "\n")


def challenge(
    root: Path,
    record: str,
    dx: str = "426783006",
    signal: NDArray[np.int16] | int = 60,
    year: int = 2020,
) -> NDArray[np.int16]:
    """One recording as Challenge 2020 or 2021 lays it out, in the style of its headers."""
    root.mkdir(parents=True, exist_ok=True)
    if isinstance(signal, int):
        signal = twelve(int(record[-4:]), signal)
    scipy.io.savemat(root / f"{record}.mat", {"val": signal}, format="4")
    many = signal.shape[1]
    if year == 2020:
        head, form, mark = f"{record} 12 500 {many} 12-May-2020 12:33:59", "16+24 1000/mV", "#"
    else:
        head, form, mark = f"{record} 12 500 {many}", "16x1+24 1000.0(0)/mv", "# "
    lines = [head]
    for name, lead in zip(TWELVE, signal, strict=True):
        lines.append(f"{record}.mat {form} 16 0 {lead[0]} 0 0 {name}")
    lines += [f"{mark}{line}" for line in ("Age: 74", "Sex: Male", f"Dx: {dx}", "Rx: Unknown")]
    (root / f"{record}.hea").write_text("\n".join(lines) + "\n")
    return signal


def icbeb(root: Path, record: str, millivolts: NDArray[Any], labels: str | None = "1,,") -> None:
    """One recording of ICBEB 2018 in its original form, and its row in ``REFERENCE.csv``."""
    root.mkdir(parents=True, exist_ok=True)
    struct = {"sex": "Female", "age": 52.0, "data": millivolts}
    scipy.io.savemat(root / f"{record}.mat", {"ECG": struct}, do_compression=True)
    reference(root, record, labels)


def reference(root: Path, record: str, labels: str | None) -> None:
    """A row of ``REFERENCE.csv``."""
    path = root / "REFERENCE.csv"
    if not path.exists():
        path.write_text("Recording,First_label,Second_label,Third_label\n")
    if labels is not None:
        with path.open("a") as file:
            file.write(f"{record},{labels}\n")


def batched(root: Path, patient: int, signal: Any = None, labels: Any = None, old: int = 2) -> None:
    """One patient of Icentia11k's older release: two pickles, of the protocol ``old``."""
    root.mkdir(parents=True, exist_ok=True)
    for content, name in ((signal, "batched"), (labels, "batched_lbls")):
        if content is not None:
            data = gzip.compress(pickle.dumps(content, old))
            (root / f"{patient:05d}_{name}.pkl.gz").write_bytes(data)


def row(key: str, patient: str, sha256: str, fold: int | None = None) -> RecordRow:
    """The row of a record in a sidecar, of which only its identity matters."""
    empty = Record(key, patient, 250.0, ("I",), np.zeros((1, 1), np.int16), np.ones(1), np.zeros(1))
    return dataclasses.replace(RecordRow.of(empty, (), ()), sha256=sha256, fold=fold)
