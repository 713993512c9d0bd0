"""Trace a step once more with every operation seen as its author wrote it, and some of them exchanged, before anything is differentiated.

Every operation of a trace goes through `Primitive.bind` before a transform has its say, so what is exchanged there is differentiated and
batched as if it had been written so. Inner jits are opened, since every `jnp.log` is one.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any

from jax import Array
from jax.core import Tracer
from jax.extend.core import Primitive

from nandetect import compat, ownership, primitives
from nandetect.fixing.graph import Graph, Node
from nandetect.program import sources
from nandetect.program.sources import Expression

# What stands in for an operation: its value in place of the one it would give, from the graph so far; None where it stays as it is.
Exchange = Callable[[Graph, Node], Array | list[Array] | None]
# The place of what a traced operation gave, before it is known.
_ANEW = itertools.count(0x6E66)


def retrace(
    trace: Callable[[], compat.AnyJaxpr], exchange: Exchange | None = None, opened: Container[Expression] | None = None
) -> tuple[compat.AnyJaxpr, Graph]:
    """The step's program as `trace` traces it, with operations exchanged; and all operations that were seen.

    With `opened`, only the inner jits that are called at these places are opened, the others are one operation each. `trace` runs the
    user's Python once more, and what that raises is raised. Only what this thread computes meanwhile is seen.
    """
    seer = _Seer(exchange, opened)
    with compat.traced_anew(next(_ANEW)), _standing_in(seer):
        jaxpr = trace()
    return jaxpr, seer.graph


def calls_around(nodes: Iterable[Node]) -> frozenset[Expression]:
    """The places of the inner jits that operations stood in, which must be opened for them to be seen again."""
    return frozenset(_place(site) for site in {id(site): site for node in nodes for site in node.inside}.values())


def _place(site: compat.CallSite) -> Expression:
    source = sources.source_of(sources.frames_at(site))
    return sources.place(source) if source is not None else ("", 0, None, None, None)


@contextlib.contextmanager
def _standing_in(seer: _Seer) -> Iterator[None]:
    originals = [(cls, cls.__dict__["bind"]) for cls in _primitive_classes()]
    owner = threading.get_ident()

    def standing_in(original: Callable[..., Any]) -> Callable[..., Any]:
        def bind(primitive: compat.Primitive, *args: Any, **params: Any) -> Any:
            if threading.get_ident() != owner or seer.is_looking_away or not _is_users_level():
                return original(primitive, *args, **params)
            return seer.operation(original, primitive, args, params)

        return bind

    for cls, original in originals:
        cls.bind = standing_in(original)
    try:
        yield
    finally:
        for cls, original in originals:
            cls.bind = original


def _primitive_classes() -> list[type]:
    """The classes of primitives that have a `bind` of their own: one, but for JAX 0.7."""
    found, waiting = [], [Primitive]
    while waiting:
        one = waiting.pop()
        waiting += one.__subclasses__()
        found += [one] if "bind" in one.__dict__ else []
    return found


def _is_users_level() -> bool:
    """Whether an operation is bound by what the user wrote, or a library for them, and not by a rule of a transform for another one."""
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code is _RULE:
            return False
        if ownership.is_users(code.co_filename):
            return True
        frame = frame.f_back
    return True


def _rule(original: Callable[..., Any], primitive: compat.Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
    """Bind an operation; what is bound below this frame is what transforms make of it."""
    return original(primitive, *args, **params)


_RULE = _rule.__code__


class _Seer:
    """Sees the operations of one trace."""

    def __init__(self, exchange: Exchange | None, opened: Container[Expression] | None):
        self.graph = Graph()
        self.is_looking_away = False
        self._numbers = itertools.count()
        self._exchange, self._opened = exchange, opened
        self._around: tuple[compat.CallSite, ...] = ()
        self._is_derivative = False
        self._called = ""

    def operation(self, original: Callable[..., Any], primitive: compat.Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """Bind one operation, or what stands in for it, and enter it."""
        record = primitives.named(primitive.name)
        if record.prints:
            return [] if primitive.multiple_results else None
        site = compat.CallSite(*compat.here())
        is_jit = record is primitives.named("jit") and any(isinstance(x, Tracer) for x in args)
        if is_jit and (self._opened is None or _place(site) in self._opened):
            return self._inside(params["jaxpr"], args, site)
        called, self._called = self._called or _function(args, params), ""
        operands: tuple[Any, ...] = tuple(x for x in args if hasattr(x, "dtype") or isinstance(x, int | float | complex | bool))
        is_derivative = self._is_derivative or "transpose(" in str(site.name_stack)
        node = Node(primitive, params, operands, (), site, next(self._numbers), is_derivative, called, self._around)
        new = self._exchanged(node) if self._exchange is not None and not is_derivative else None
        # What is exchanged is bound all the same where JAX learns from binding it what the function returns; nobody reads that result.
        bound: Any = _rule(original, primitive, args, params) if new is None or called else None
        out: Any = bound if new is None else [new] if primitive.multiple_results and not isinstance(new, list) else new
        node.outs = tuple(out) if isinstance(out, list | tuple) else (out,)
        self.graph.enter(node)
        return out

    def _exchanged(self, node: Node) -> Array | list[Array] | None:
        assert self._exchange is not None
        self.is_looking_away = True
        try:
            return self._exchange(self.graph, node)
        finally:
            self.is_looking_away = False

    def _inside(self, closed: compat.AnyJaxpr, args: Sequence[Array], site: compat.CallSite) -> list[Array]:
        """The equations of a jit, one by one; a library's stand at the line that called it."""
        before = self._around
        self._around = (*before, site)
        try:
            return self._opened_up(closed, args, site)
        finally:
            self._around = before

    def _opened_up(self, closed: compat.AnyJaxpr, args: Sequence[Array], site: compat.CallSite) -> list[Array]:
        jaxpr, consts = compat.open_jaxpr(closed)
        values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

        def read(atom: compat.Atom) -> Array:
            return atom.val if isinstance(atom, compat.Literal) else values[atom]

        traceback, stack = site
        for eqn in jaxpr.eqns:
            own = compat.user_frames(eqn.source_info)
            place = eqn.source_info.traceback if any(ownership.is_users(frame.file) for frame in own) else traceback
            before = self._is_derivative
            self._is_derivative, self._called = before or _is_derivative(eqn), _name(eqn)
            try:
                with compat.at(compat.CallSite(place, stack + eqn.source_info.name_stack)):
                    outs = compat.bind(eqn, [read(atom) for atom in eqn.invars])
            finally:
                self._is_derivative, self._called = before, ""
            values.update(zip(eqn.outvars, outs, strict=False))
        return [read(atom) for atom in jaxpr.outvars]


def _name(eqn: compat.JaxprEqn) -> str:
    """What the function of a `custom_jvp` is called."""
    body = eqn.params.get("call_jaxpr")
    info = getattr(compat.open_jaxpr(body)[0].debug_info, "func_src_info", None) if body is not None else None
    return str(info or "").split(" at ")[0]


def _function(args: Sequence[Any], params: dict[str, Any]) -> str:
    """The same where the function itself is bound: as its first operand before JAX 0.8."""
    found = next((one for one in (*params.get("subfuns", ()), *args[:1]) if callable(getattr(one, "f", None))), None)
    return getattr(found.f, "__name__", "") if found is not None else ""


def _is_derivative(eqn: compat.JaxprEqn) -> bool:
    stack = compat.name_stack(eqn)
    return "jvp(" in stack or "transpose(" in stack
