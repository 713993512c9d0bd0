"""What `--data` reads: whole and checked, or refused in one line."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from nandetect import data
from nandetect.data import idx, mnist
from nandetect.data.dataset import stratified
from nandetect.errors import UsageError

REAL_MNIST = Path(__file__).parents[3] / "shared" / "mnist"
IMAGES = np.arange(40 * 2 * 3, dtype=np.uint8).reshape(40, 2, 3)
LABELS = np.arange(40, dtype=np.uint8) % 4


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file by the format's description: two zeros, the type (8 is unsigned byte), the number of axes, their sizes, the numbers."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(LABELS)))
    return tmp_path


def saved(path, **arrays):
    np.savez(path / "some.npz", **arrays)
    return str(path / "some.npz")


def test_the_embedded_digits_are_the_1797_of_uci():
    digits = data.load("digits")
    inputs = np.concatenate([digits.train.inputs, digits.held_out.inputs])
    labels = np.concatenate([digits.train.labels, digits.held_out.labels])
    assert inputs.shape == (1797, 64)
    assert (inputs.min(), inputs.max()) == (0, 255)
    # The class counts are those of the repository's description.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_a_fifth_of_every_class_is_held_out_and_the_same_one_each_time():
    one, two = data.load("digits"), data.load("digits")
    assert np.bincount(one.held_out.labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert np.array_equal(one.held_out.inputs, two.held_out.inputs)


def test_a_stratified_few_are_as_many_of_every_class():
    labels = np.repeat(np.arange(10), 144)
    assert np.bincount(labels[stratified(labels, 40, np.random.default_rng(0))]).tolist() == [4] * 10


def test_a_stratified_few_keep_a_rare_class():
    labels = np.array([0] * 97 + [1] * 3)
    assert np.bincount(labels[stratified(labels, 10, np.random.default_rng(0))]).tolist() == [9, 1]


@pytest.mark.parametrize(("scaling", "low", "high", "mean"), [("raw", 0, 255, 77.75), ("unit", 0, 1, 0.305), ("standard", -0.81, 1.85, 0)])
def test_a_scaling_does_what_it_says(scaling, low, high, mean):
    inputs = data.scaled(data.load("digits"), scaling).train.inputs
    assert inputs.dtype == np.float32
    assert [inputs.min(), inputs.max(), inputs.mean()] == pytest.approx([low, high, mean], abs=0.01)


@pytest.mark.parametrize("scaling", ["unit", "standard"])
def test_a_nan_in_the_data_does_not_spread(scaling, tmp_path):
    images = IMAGES.astype(np.float32)
    images[0, 0, 0] = np.nan
    given = data.scaled(data.load(saved(tmp_path, images=images, labels=LABELS)), scaling)
    assert sum(np.isnan(part.inputs).sum() for part in (given.train, given.held_out)) == 1


def test_a_constant_image_can_be_standardised(tmp_path):
    given = data.scaled(data.load(saved(tmp_path, images=np.ones((40, 6)), labels=LABELS)), "standard")
    assert not given.train.inputs.any()


def test_idx_files_are_read_compressed_or_not(directory):
    given = data.load(str(directory))
    assert given.classes == 4
    assert (len(given.train), len(given.held_out)) == (32, 8)
    assert np.array_equal(idx.read(directory / "train-images-idx3-ubyte"), IMAGES)


def test_idx_numbers_are_big_endian(tmp_path):
    (tmp_path / "x").write_bytes(bytes([0, 0, 0x0C, 1]) + struct.pack(">I2i", 2, -5, 70000))
    assert idx.read(tmp_path / "x").tolist() == [-5, 70000]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_idx_file_cut_anywhere_is_refused(directory, pack):
    whole = pack(idx_bytes(IMAGES))
    (directory / "train-images-idx3-ubyte").unlink()
    for length in range(len(whole)):
        (directory / "train-images-idx3-ubyte.gz").write_bytes(whole[:length])
        with pytest.raises(UsageError, match=r"train-images-idx3-ubyte\.gz"):
            data.load(str(directory))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not an idx file", "is not an IDX file: it begins with 6e 6f 74 20"),
        (idx_bytes(IMAGES) + b"more", "is corrupt: its header promises 240 bytes and 244 follow"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "is corrupt: its header promises"),
        (gzip.compress(idx_bytes(IMAGES))[:-8] + b"12345678", "is not a whole gzip file: CRC check failed"),
        (idx_bytes(IMAGES[:39]), "there are 39 images and 40 labels"),
        (idx_bytes(IMAGES[:0]), "there are 0 images and 40 labels"),
    ],
    ids=["text", "more follows", "huge sizes", "gzip's checksum", "one image less", "no image"],
)
def test_a_broken_idx_file_is_refused(directory, content, said):
    (directory / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        data.load(str(directory))


def test_a_directory_without_its_labels_says_which(directory):
    (directory / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UsageError, match="has train-images-idx3-ubyte but no train-labels beside it"):
        data.load(str(directory))


def test_an_npz_file_may_bring_its_own_test_part(tmp_path):
    given = data.load(saved(tmp_path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:8], y_test=LABELS[:8]))
    assert (len(given.train), len(given.held_out), given.classes) == (40, 8, 4)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": IMAGES}, "has images; it should have `images` and `labels`"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "there are no samples in it"),
        ({"images": IMAGES, "labels": LABELS[:5]}, "there are 40 images and 5 labels"),
        ({"images": IMAGES, "labels": LABELS.astype(int) - 1}, "label -1 is out of range"),
        ({"images": IMAGES, "labels": np.where(np.arange(40), LABELS, 99)}, "label 99 is out of range: no sample has label 4"),
        ({"images": IMAGES, "labels": np.where(np.arange(40), LABELS, 4)}, "label 4 has no sample to train on"),
        ({"images": IMAGES, "labels": LABELS * 0}, "every sample has label 0"),
        ({"images": IMAGES, "labels": LABELS + 0.5}, "they should be one whole number for each sample"),
        ({"images": IMAGES, "labels": np.eye(4)[LABELS]}, r"the labels are float64\[40, 4\]"),
        ({"images": IMAGES.astype(str), "labels": LABELS}, "should be numbers"),
        ({"images": IMAGES.astype(object), "labels": LABELS}, "not a readable .npz file"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:8, :1], "y_test": LABELS[:8]}, "have 6 pixels and held-out ones 3"),
    ],
)
def test_arrays_that_cannot_be_trained_on_are_refused(tmp_path, arrays, said):
    with pytest.raises(UsageError, match=said):
        data.load(saved(tmp_path, **arrays))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"text"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "some.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"not a readable \.npz file"):
        data.load(str(tmp_path / "some.npz"))


@pytest.mark.parametrize(
    ("where", "said"),
    [("nowhere", "there is no data nowhere"), ("nowhere.npz", "there is no file"), (__file__, "is neither a directory of IDX files nor")],
)
def test_data_that_is_not_there_is_refused(where, said):
    with pytest.raises(UsageError, match=said):
        data.load(where)


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no IDX files"):
        data.load(str(tmp_path))


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason=f"the original MNIST files are not at {REAL_MNIST}")
def test_the_original_mnist_files_are_read():
    given = data.load(str(REAL_MNIST))
    labels = np.concatenate([given.train.labels, given.held_out.labels])
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert given.train.inputs.shape == (8000, 784)
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        assert hashlib.sha256((REAL_MNIST / name).read_bytes()).hexdigest() == mnist.SHA256[name]


@pytest.fixture
def mirrors(tmp_path, monkeypatch):
    """Two mirrors of four small files, served from this machine, and an empty cache."""
    pytest.importorskip("pooch")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    homes = [tmp_path / "one", tmp_path / "two"]
    content = {name: gzip.compress(idx_bytes(IMAGES if "images" in name else LABELS)) for name in mnist.SHA256}
    servers = []
    for home in homes:
        home.mkdir()
        for name, packed in content.items():
            (home / name).write_bytes(packed)
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(home))))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
    monkeypatch.setattr(mnist, "MIRRORS", tuple(f"http://127.0.0.1:{server.server_port}/" for server in servers))
    monkeypatch.setattr(mnist, "SHA256", {name: hashlib.sha256(packed).hexdigest() for name, packed in content.items()})
    monkeypatch.setenv("NANDETECT_CACHE", str(tmp_path / "cache"))
    yield homes
    for server in servers:
        server.shutdown()
        server.server_close()


def cached(tmp_path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (tmp_path / "cache" / "mnist").iterdir()}


def test_mnist_is_downloaded_once_and_kept(mirrors, tmp_path):
    given = data.load("mnist")
    assert (len(given.train), len(given.held_out)) == (40, 40)
    assert cached(tmp_path) == mnist.SHA256
    for home in mirrors:
        for file in home.iterdir():
            file.unlink()
    assert len(data.load("mnist").train) == 40


def test_a_mirror_that_is_missing_a_file_or_has_a_corrupt_one_is_passed_over(mirrors, tmp_path):
    (mirrors[0] / "train-images-idx3-ubyte.gz").write_bytes(b"corrupt")
    (mirrors[0] / "t10k-images-idx3-ubyte.gz").unlink()
    assert len(data.load("mnist").train) == 40
    assert cached(tmp_path) == mnist.SHA256


def test_a_download_that_no_mirror_has_whole_leaves_nothing_behind(mirrors, tmp_path):
    for home in mirrors:
        (home / "train-images-idx3-ubyte.gz").write_bytes(b"corrupt")
    with pytest.raises(UsageError, match=r"train-images-idx3-ubyte\.gz could not be downloaded .* has another SHA-256"):
        data.load("mnist")
    assert cached(tmp_path) == {}


def test_a_cached_file_that_was_damaged_is_fetched_again(mirrors, tmp_path):
    data.load("mnist")
    (tmp_path / "cache" / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    assert len(data.load("mnist").held_out) == 40
    assert cached(tmp_path) == mnist.SHA256


def test_an_interrupted_download_leaves_nothing_behind(mirrors, tmp_path, monkeypatch):
    import requests

    def interrupted(self, *args, **kwargs):
        yield b"the first bytes"
        raise KeyboardInterrupt

    monkeypatch.setattr(requests.Response, "iter_content", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.load("mnist")
    assert cached(tmp_path) == {}


def test_a_cache_that_cannot_be_written_is_told(mirrors, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NANDETECT_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"cannot be written: .*; set NANDETECT_CACHE"):
        data.load("mnist")
