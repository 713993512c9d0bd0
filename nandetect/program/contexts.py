"""What a library has open around the functions that it jits, without which they cannot be traced again."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext


def around(function: object) -> AbstractContextManager[object]:
    """To be open while a jitted function is traced: flax's nnx tells its modules from one another there, by a tag of the function's."""
    tag = getattr(getattr(function, "__wrapped__", None), "ctxtag", None)
    update = getattr(sys.modules.get("flax.nnx"), "update_context", None)
    return nullcontext() if tag is None or update is None else update(tag)
