"""Which equations of a program compute derivatives and which do not, where name stacks do not tell: in forward mode.

JAX tags a value and its tangent alike. A second trace tells them apart: in it, all that differentiation computes beside tangents is marked,
each mark an equation of its own that nothing reads. Under a second differentiation the marks of the first are marked in turn, so that what
is no derivative at any level has as many marks in a row as there are levels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer

from nandetect import compat
from nandetect.annotations import Pytree

MARK = "nandetect: no derivative"


def marked(retrace: Callable[[], compat.AnyJaxpr], like: compat.Jaxpr) -> compat.Jaxpr | None:
    """A program traced once more with marks; None where it is not the program that it is to be like."""
    # What can be traced once need not let itself be traced again: then phases are told from the tags alone.
    try:
        with _marking():
            jaxpr, _ = compat.open_jaxpr(retrace())
    except Exception:
        return None
    return jaxpr if _shape(jaxpr) == _shape(like) else None


def is_mark(eqn: compat.JaxprEqn) -> bool:
    """Whether an equation is a mark."""
    return eqn.params.get("name") == MARK


def unmarked(jaxpr: compat.Jaxpr) -> list[compat.JaxprEqn]:
    """The equations of a jaxpr but the marks."""
    return [eqn for eqn in jaxpr.eqns if not is_mark(eqn)]


def _shape(jaxpr: compat.Jaxpr) -> list[object]:
    """How equations stand in one another, without the marks, and how many results each has."""
    return [(len(eqn.outvars), [_shape(compat.open_jaxpr(sub)[0]) for _, sub in compat.sub_jaxprs(eqn)]) for eqn in unmarked(jaxpr)]


@contextlib.contextmanager
def _marking() -> Iterator[None]:
    """While open, all that differentiation computes beside tangents is marked, and nothing that was traced before is reused."""
    methods = [(trace, *method) for trace in compat.differentiating_traces() for method in vars(trace).items() if _is_step(*method)]
    for trace, name, method in methods:
        setattr(trace, name, _with_marks(method))
    try:
        with compat.traced_anew(0x6E65):
            yield
    finally:
        for trace, name, method in methods:
            setattr(trace, name, method)


def _is_step(name: str, method: object) -> bool:
    return name.startswith("process_") and callable(method)


def _with_marks(method: Callable[..., Pytree]) -> Callable[..., Pytree]:
    def process(self: Pytree, *args: Pytree, **kwargs: Pytree) -> Pytree:
        outs = method(self, *args, **kwargs)
        with compat.inside(self.parent_trace):
            for out in jax.tree.leaves(outs, is_leaf=_is_traced):
                value = out.primal if getattr(out, "_trace", None) is self else out
                # A value that is known already is no equation's.
                if _is_traced(value):
                    checkpoint_name(value, MARK)
        return outs

    return process


def _is_traced(value: object) -> bool:
    return isinstance(value, Tracer)
