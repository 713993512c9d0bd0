"""Here fixes are tried; the tests of other rooms go without, since trying one takes as long as locating its fault."""

from __future__ import annotations

import pytest

from nandetect import fixing
from nandetect.fixing import locate


@pytest.fixture(autouse=True)
def proving(monkeypatch):
    monkeypatch.setattr(fixing, "PRESCRIBES", True)
    monkeypatch.setattr(locate, "_PROVEN", {})
    # What is tried does not hang on how busy the machine is.
    monkeypatch.setattr(locate, "SECONDS", 1e9)
