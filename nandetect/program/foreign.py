"""What runs outside of JAX's own program, by the name that its author gave it: a callback, a kernel."""

from __future__ import annotations

from nandetect import compat, primitives
from nandetect.compat import JaxprEqn

# What a callback may be wrapped in: our own recording, JAX's, a `functools.partial`, a decorator's.
_WRAPPERS = ("callback", "callback_func", "func", "__wrapped__")
# The most wrappings that are taken off: a mock has whatever attribute it is asked for, without end.
_MOST_WRAPPINGS = 16


def named(eqn: JaxprEqn) -> str:
    """``the callback `read` `` or ``the kernel `softmax` ``, without a name where it has none; empty for an equation that is neither."""
    record = primitives.of(eqn)
    if not record.opaque:
        return ""
    what, name = ("callback", _callback(eqn.params["callback"])) if record.calls_back else ("kernel", _kernel(eqn))
    return f"the {what} `{name}`" if name.replace(".", "").replace("-", "_").isidentifier() else f"the {what}"


def _callback(function: object) -> str:
    # The name is a help beside the report: whatever a user's object does when it is asked for an attribute, the report goes without.
    try:
        for _ in range(_MOST_WRAPPINGS):
            inner = next((getattr(function, wrapper) for wrapper in _WRAPPERS if callable(getattr(function, wrapper, None))), None)
            if inner is None:
                name = getattr(function, "__name__", "")
                return name if isinstance(name, str) else ""
            function = inner
    except Exception:
        return ""
    return ""


def _kernel(eqn: JaxprEqn) -> str:
    given = [eqn.params.get(key) for key in ("target_name", "name", "kernel_name")]
    traced = [compat.open_jaxpr(body)[0].debug_info for _, body in compat.sub_jaxprs(eqn)]
    names = [*given, *(getattr(info, "func_name", "") for info in traced)]
    return next((name for name in names if isinstance(name, str) and name), "")
