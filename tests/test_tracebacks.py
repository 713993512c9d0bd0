"""Of an error that passes through nandetect, the user sees the user's own frames."""

from __future__ import annotations

import subprocess
import sys
import traceback

import pytest

from nandetect import compat, tracebacks


def passing(function):
    """A function as one of nandetect's own modules would stand around it."""
    code = "def around():\n    try:\n        return function()\n    except BaseException as error:\n        hide(error)\n        raise\n"
    names = {"function": function, "hide": tracebacks.hide}
    exec(compile(code, f"{tracebacks.HERE}some_room/some_module.py", "exec"), names)
    return names["around"]


def fails():
    raise ValueError("no")


def test_a_frame_that_an_error_passed_through_is_gone():
    with pytest.raises(ValueError) as raised:
        passing(passing(fails))()
    names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert names == ["test_a_frame_that_an_error_passed_through_is_gone", "fails"]


def test_a_model_of_the_package_s_own_is_the_user_s():
    assert tracebacks.is_ours(compat.__file__) and not tracebacks.is_ours(__file__)
    assert not tracebacks.is_ours(f"{tracebacks.HERE}_models/mlp.py")


def test_jax_leaves_them_out_of_the_traceback_of_a_function_that_it_traces():
    code = """
import traceback, jax
from nandetect import compat, tracebacks
source = "def around(x):\\n    return function(x)\\n"
def function(x):
    raise ValueError("no")
names = {"function": function}
exec(compile(source, tracebacks.HERE + "some_module.py", "exec"), names)
try:
    jax.jit(names["around"])(1.0)
except ValueError as error:
    print([frame.name for frame in traceback.extract_tb(error.__traceback__)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "['<module>', 'function']\n", done.stderr
