"""Tracebacks without nandetect's own frames, as JAX leaves out its own. JAX itself is told of them in `compat`. No JAX here."""

from __future__ import annotations

import itertools
import os
import types
from collections.abc import Callable

# The folder of the package.
HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
# A model that comes with nandetect is a program like any other.
_MODELS = os.path.join(HERE, "_models", "")


def is_ours(file: str) -> bool:
    """Whether a frame of this file is nandetect's own."""
    return file.startswith(HERE) and not file.startswith(_MODELS)


def hide(error: BaseException) -> None:
    """Take nandetect's frames out of an exception that passes through: `except BaseException as error: hide(error); raise`.

    A bare `raise` adds none, so the frame that says so is gone too. Wherever several of ours lie one in another, the outermost does it.
    """
    error.__traceback__ = without(error.__traceback__, is_ours)


def without(trace: types.TracebackType | None, hidden: Callable[[str], bool]) -> types.TracebackType | None:
    """A traceback without the frames of hidden files."""
    frames = []
    while trace is not None:
        if not hidden(trace.tb_frame.f_code.co_filename):
            frames.append(trace)
        trace = trace.tb_next
    for frame, following in itertools.zip_longest(frames, frames[1:]):
        if frame.tb_next is not following:
            frame.tb_next = following
    return frames[0] if frames else None
