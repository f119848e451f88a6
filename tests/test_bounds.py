"""A foreign file expands to so much and no more, and names nothing outside of its folder."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import zipfile
import zlib
from pathlib import Path

import databases as db
import numpy as np
import pytest
import scipy.io

from ecgpipe.config import digest
from ecgpipe.datasets import Folder, read_records
from ecgpipe.errors import BadRecord, Damaged, EcgpipeError
from ecgpipe.files import remote
from ecgpipe.files.atomic import write_json
from ecgpipe.formats import mat_files, pickles
from ecgpipe.formats.csv_tables import read_columns, read_lines, text_of
from ecgpipe.formats.tables import READERS
from ecgpipe.storage.samples import decode, encode
from ecgpipe.storage.store import open_store


def test_a_pickle_that_expands_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "LARGEST", 100_000)
    monkeypatch.setattr(pickles, "MOST", 1000)
    small = np.arange(1000, dtype=np.float32)
    np.testing.assert_array_equal(pickles.unpickle(gzip.compress(pickle.dumps(small, 2))), small)
    text = b"\x80\x02X\xff\xff\x00\x00" + b"a" * 0xFFFF + b"q\x00"  # a string, kept as number 0
    encoded = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    for content, words in (
        (bytes(200_000), "expands to more than 100,000 bytes"),
        (b"\x80\x02" + b"]" * 5000 + b".", "more than 1,000 instructions"),
        (text + encoded * 2 + b".", "strings make more than 100,000 bytes"),
    ):
        with pytest.raises(pickle.UnpicklingError, match=words):
            pickles.unpickle(gzip.compress(content))


def test_a_zip_that_expands_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db.cinc(tmp_path / "raw", 1)
    with zipfile.ZipFile(tmp_path / "raw.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted((tmp_path / "raw").iterdir()):
            packed.write(path, path.name)
    assert len(list(read_records("cinc2017", tmp_path / "raw.zip"))) == 1
    monkeypatch.setattr(remote, "LARGEST", 1000)
    with pytest.raises(BadRecord, match=r"A00001\.mat: 1,824 bytes in its zip; 1,000 can be right"):
        Folder.open(tmp_path / "raw.zip").read("A00001.mat")


def test_a_matlab_file_that_expands_is_refused() -> None:
    content = io.BytesIO()
    scipy.io.savemat(content, {"val": np.zeros((12, 100_000))}, do_compression=True)
    data = content.getvalue()
    assert len(data) < 20_000
    assert mat_files.load_mat(data, 10_000_000)["val"].shape == (12, 100_000)
    with pytest.raises(ValueError, match="expands to more than 5,000,000 bytes"):
        mat_files.load_mat(data, 5_000_000)
    broken = data[:136] + zlib.compress(bytes(100))[:4] + data[140:]
    with pytest.raises(Exception, match=r".+"):
        mat_files.load_mat(broken, 10_000_000)


@pytest.mark.parametrize("header", [b"{'descr': '<f8', 'fortran_order': False, 'shape': (9e9,), }"])
def test_an_array_that_promises_more_than_it_holds(tmp_path: Path, header: bytes) -> None:
    text = header.replace(b"9e9", b"90000000000").ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + b"\x76\x00" + text + bytes(80))
    with pytest.raises(BadRecord, match=r"a\.npy: no readable NumPy file"):
        READERS[".npy"](tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["../p00000", "p00000/..", "", "a.b"])
def test_parts_of_a_foreign_store_stay_inside_it(tmp_path: Path, stores: Path, name: str) -> None:
    store = tmp_path / "archive"
    shutil.copytree(stores / "archive" / "icentia11k", store)
    tree = json.loads((store / "manifest.json").read_text())
    tree["parts"][0]["name"] = name
    del tree["digest"]
    write_json(store / "manifest.json", {**tree, "digest": digest(tree)})
    with pytest.raises(Damaged, match=r"manifest\.json: parts\.0\.name"):
        open_store(store)


def test_files_of_a_foreign_store_stay_inside_it(tmp_path: Path, stores: Path) -> None:
    store = tmp_path / "archive"
    shutil.copytree(stores / "archive" / "icentia11k", store)
    path = sorted((store / "parts").glob("*.json"))[0]
    tree = json.loads(path.read_text())
    for file in ("../../etc/passwd", "/etc/passwd", "records.zarr/../../x", "other/file"):
        write_json(path, {**tree, "files": {file: {"bytes": 1, "sha256": "0"}}})
        with pytest.raises(Damaged, match=rf"{path.name}: files"):
            list(open_store(store).read_all())


def test_a_header_names_no_codec_of_its_own(stores: Path) -> None:
    """numcodecs has a codec that unpickles."""
    record = next(open_store(stores / "archive" / "icentia11k").read_all())
    with pytest.raises(Exception, match=r".+"):
        encode(record, {"id": "pickle"}, ("N",), ())
    members = encode(record, {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 2}, (), ())
    db.equal(decode(members), record)
    header = json.loads(members["json"])
    header["codec"] = {"id": "pickle"}
    members["json"] = json.dumps(header).encode()
    with pytest.raises(Damaged, match=r"codec .*pickle.* is none of ecgpipe's"):
        decode(members)


def test_tables_are_read_right_or_refused_with_their_line() -> None:
    text = "a,b\n1,é\n\n2,x\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert list(read_lines("t.csv", text.encode(encoding))) == [
            (1, ["a", "b"]), (2, ["1", "é"]), (4, ["2", "x"])
        ]  # fmt: skip
    for data, words in (
        (text.encode("cp1252"), r"t\.csv: line 2 is no UTF-8"),
        (b"a,b\n1,\0\n", r"t\.csv: line 2 holds a NUL"),
        (b'a,b\n1,"x\n', r"t\.csv: line \d: unexpected end"),
        (b"a,b\n1," + b"x" * 200_000, r"t\.csv: line \d: field larger"),
        (b"a,b\n1,2\n3\n", r"t\.csv: line 3 has 1 cells where 2"),
        (b"a,c\n1,2\n", r"t\.csv: no column b; is it PTB-XL's"),
    ):
        with pytest.raises(EcgpipeError, match=words):
            list(read_columns("t.csv", data, {"a", "b"}, "PTB-XL"))
    assert text_of("t", b"") == ""
