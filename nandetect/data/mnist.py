"""MNIST (Y. LeCun, C. Cortes, C. J. C. Burges): downloaded once, checked, kept in the user's cache."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from nandetect.data import idx
from nandetect.data.dataset import Data, data, labelled
from nandetect.errors import UsageError

MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_TIMEOUT = 30


def load() -> Data:
    """60,000 digits to train on and 10,000 held out, 28 by 28 pixels, 0..255."""
    train_images, train_labels, test_images, test_labels = (idx.read(fetch(name)) for name in SHA256)
    return data("mnist", labelled(train_images, train_labels, "mnist"), labelled(test_images, test_labels, "mnist"))


def fetch(name: str) -> Path:
    """The file in the user's cache, downloaded from the first mirror that has it whole."""
    try:
        import pooch
        import requests
    except ImportError as error:
        raise UsageError("--data mnist needs pooch to download it: pip install 'nandetect[mnist]'") from error
    cache = Path(os.environ.get("NANDETECT_CACHE") or pooch.os_cache("nandetect")) / "mnist"
    # A progress bar for each file, on standard error, where that is a terminal.
    download = pooch.HTTPDownloader(progressbar=sys.stderr.isatty() and find_spec("tqdm") is not None, timeout=_TIMEOUT)
    failures = []
    for mirror in MIRRORS:
        try:
            # pooch downloads beside the target, checks the hash, and only then moves the file into place.
            return Path(pooch.retrieve(mirror + name, f"sha256:{SHA256[name]}", name, cache, downloader=download))  # pyright: ignore[reportArgumentType]
        except (requests.RequestException, ValueError) as error:
            failures.append(f"{mirror} ({_short(error)})")
        except OSError as error:
            raise UsageError(f"{cache} cannot be written: {error.strerror}; set NANDETECT_CACHE to a directory that can") from error
    raise UsageError(f"{name} could not be downloaded from {' or '.join(failures)}; put the IDX files in a directory and give --data DIR")


def _short(error: Exception) -> str:
    """The error in a few words: pooch gives a long ValueError for a hash that differs, and a chain of causes for a network fault."""
    if isinstance(error, ValueError) and "hash" in str(error):
        return "what came has another SHA-256"
    return type(error).__name__
