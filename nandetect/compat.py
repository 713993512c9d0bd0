"""Everything that differs between JAX releases or is private to JAX. Beside `effects` and `program/rule_lines`, nothing says `jax._src`."""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import jax
from jax._src import array, config, core, dispatch, pjit, source_info_util, traceback_util
from jax._src.interpreters import ad

from nandetect import primitives, tracebacks
from nandetect.annotations import Array, Busy, Pytree, Traceback
from nandetect.records import Frame

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive, Var
else:
    # `jax.extend` costs an import that a watched program would wait for.
    Jaxpr, JaxprEqn, Literal, Primitive, Var = core.Jaxpr, core.JaxprEqn, core.Literal, core.Primitive, core.Var
    ClosedJaxpr = getattr(core, "ClosedJaxpr", core.Jaxpr)  # JAX 0.12 made the two one
Atom: TypeAlias = Var | Literal
AnyJaxpr: TypeAlias = Jaxpr | ClosedJaxpr
# Of an error in a function that is traced, JAX shows the user's frames: without its own, and without these.
traceback_util.register_exclusion(tracebacks.HERE)


def open_jaxpr(jaxpr: AnyJaxpr) -> tuple[Jaxpr, list[Array]]:
    """The equations and the constants of a jaxpr. JAX 0.12 made `ClosedJaxpr` and `Jaxpr` one."""
    return cast(Jaxpr, getattr(jaxpr, "jaxpr", jaxpr)), list(getattr(jaxpr, "consts", ()))


def aval(atom: Atom) -> core.ShapedArray:
    """The shape and dtype of an atom."""
    return cast(core.ShapedArray, atom.aval)


def as_function(jaxpr: AnyJaxpr, consts: list[Array]) -> Callable[..., list[jax.Array]]:
    """A jaxpr as a flat function of its arguments, traceable again."""
    jaxpr, own = open_jaxpr(jaxpr)
    consts = consts or own
    return lambda *args: core.eval_jaxpr(jaxpr, consts, *args)


def quiet_function(jaxpr: AnyJaxpr) -> Callable[..., list[jax.Array]]:
    """`as_function` without what only prints."""
    jaxpr, consts = open_jaxpr(jaxpr)
    return as_function(rewritten(jaxpr, quiet), consts)


def sub_jaxprs(eqn: JaxprEqn) -> list[tuple[str, AnyJaxpr]]:
    """The jaxprs that an equation carries, with the name of the parameter that holds each."""
    if primitives.of(eqn).solves:
        # The others are for transposing it, and do not run.
        return [("jaxprs", eqn.params["jaxprs"].solve)]
    if eqn.primitive.name == "call_hi_primitive" and "_prim" in eqn.params:
        return _expanded(eqn)
    found = []
    for key, value in eqn.params.items():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, Jaxpr | ClosedJaxpr):
                found.append((key, item))
    return found


_expansions: weakref.WeakKeyDictionary[object, AnyJaxpr] = weakref.WeakKeyDictionary()


def _expanded(eqn: JaxprEqn) -> list[tuple[str, AnyJaxpr]]:
    """What a high-level primitive of JAX 0.12 (a `custom_root`, say) stands for: it carries a function, not a jaxpr."""
    primitive = eqn.params["_prim"]
    if primitive not in _expansions:

        def expand(*flat: jax.Array) -> list[jax.Array]:
            return jax.tree.leaves(primitive.expand(*jax.tree.unflatten(primitive.in_tree, flat)))

        _expansions[primitive] = jax.make_jaxpr(expand)(*(atom.aval for atom in eqn.invars))
    return [("_prim", _expansions[primitive])]


def scan_parts(eqn: JaxprEqn) -> tuple[int, int]:
    """(number of constants, number of carried values) of a scan. JAX 0.11 replaced the two counts by trees."""
    params = eqn.params
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(list(consts.vals)), len(list(carry.vals))


def user_frames(info: source_info_util.SourceInfo | CallSite) -> list[Frame]:
    """The Python frames outside JAX in which an equation was traced, innermost first; cut at the enclosing sub-trace."""
    try:
        frames = list(source_info_util.user_frames(info.traceback))
    except AttributeError:  # before JAX 0.8 the whole record was wanted
        frames = list(source_info_util.user_frames(info))
    frames = frames[: _in_sub_trace(info.traceback)]
    return [
        Frame(
            file=frame.file_name,
            line=frame.start_line,
            column=frame.start_column if frame.end_line else None,
            end_line=frame.end_line or None,
            end_column=frame.end_column if frame.end_line else None,
            function=frame.function_name,
        )
        for frame in frames
    ]


def _in_sub_trace(traceback: Traceback | None) -> int | None:
    """How many of the user's frames stand inside the sub-trace of an equation; None for all of them.

    Newer JAX cuts the traceback there. On 0.7 it goes on to wherever a cached jit or loop was traced first, which may be another call.
    """
    count = 0
    for frame in traceback.frames if traceback is not None else ():
        if frame.function_name == "trace_to_jaxpr_dynamic":
            return count
        count += source_info_util.is_user_filename(frame.file_name)
    return None


def name_stack(eqn: JaxprEqn) -> str:
    """The transforms and scopes an equation stands in, outermost first, relative to the enclosing sub-trace."""
    return str(eqn.source_info.name_stack)


def rewritten(jaxpr: Jaxpr, change: Callable[[JaxprEqn], JaxprEqn | None]) -> Jaxpr:
    """A jaxpr with every equation, also of the jaxprs in it, as `change` gives it back (None drops it); itself where nothing changes."""
    eqns = [_rewritten_equation(eqn, change) for eqn in jaxpr.eqns]
    if all(new is old for new, old in zip(eqns, jaxpr.eqns, strict=True)):
        return jaxpr
    return jaxpr.replace(eqns=[eqn for eqn in eqns if eqn is not None])


def _rewritten_equation(eqn: JaxprEqn, change: Callable[[JaxprEqn], JaxprEqn | None]) -> JaxprEqn | None:
    changed = change(eqn)
    if changed is not eqn or primitives.of(eqn).solves:
        return changed
    params = {key: _rewritten_parameter(value, change) for key, value in eqn.params.items()}
    return eqn if all(params[key] is value for key, value in eqn.params.items()) else eqn.replace(params=params)


def _rewritten_parameter(value: object, change: Callable[[JaxprEqn], JaxprEqn | None]) -> object:
    if type(value) is tuple or type(value) is list:
        items = [_rewritten_parameter(item, change) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else type(value)(items)
    if not isinstance(value, Jaxpr | ClosedJaxpr):
        return value
    inner, _ = open_jaxpr(value)
    new = rewritten(inner, change)
    if new is inner:
        return value
    return value.replace(jaxpr=new) if isinstance(value, ClosedJaxpr) and inner is not value else new


def quiet(eqn: JaxprEqn) -> JaxprEqn | None:
    """An equation without what only prints in it; None where it does nothing else."""
    return None if primitives.of(eqn).prints else eqn


def bind(eqn: JaxprEqn, ins: Sequence[Array]) -> list[Array]:
    """Run one equation on these operands, or trace it where they are traced. `jax.debug` does not print again."""
    silent = _rewritten_equation(eqn, quiet)
    return [] if silent is None else _bind(silent, ins)


def _bind(eqn: JaxprEqn, ins: Sequence[Array]) -> list[Array]:
    record = primitives.of(eqn)
    # Traced anew, the body of a `shard_map` is not checked for what varies over which of the mesh's axes.
    if record.varies:
        return list(ins)
    if record.unchecked:
        return list(getattr(jax.lax, record.unchecked)(list(ins), eqn.params["axes"]))
    if not primitives.is_known(eqn.primitive.name):
        # Another library's primitive may want JAX's arrays.
        ins = [x if isinstance(x, jax.Array) or x.dtype == jax.dtypes.float0 else jax.numpy.asarray(x) for x in ins]
    params = eqn.primitive.get_bind_params(eqn.params)
    functions, params = params if isinstance(params, tuple) else ([], params)  # a pair before JAX 0.9
    manager = getattr(getattr(eqn, "ctx", None), "manager", None) or contextlib.nullcontext()
    with manager:
        out = eqn.primitive.bind(*functions, *ins, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def differentiating_traces() -> list[type[Pytree]]:
    """The classes of the traces that differentiate; each hands what it computes to its `parent_trace`."""
    return [getattr(ad, name) for name in ("JVPTrace", "LinearizeTrace") if hasattr(ad, name)]


def inside(trace: Pytree) -> contextlib.AbstractContextManager[object]:
    """A context in which what is computed is traced there."""
    return core.set_current_trace(trace)


def traced_anew(seed: int) -> contextlib.AbstractContextManager[object]:
    """A context in which no trace of an inner jit or loop is reused but those made in such a one: JAX keeps them by its settings."""
    return config.hlo_source_file_canonicalization_regex(f"(?!){seed}")


def without_refs(jaxpr: AnyJaxpr) -> AnyJaxpr:
    """A jaxpr whose mutable arrays are values that go from equation to equation, as JAX compiles it."""
    from jax._src.state import discharge

    discharge_state = cast(Callable[..., AnyJaxpr], discharge.discharge_state)
    if "consts" in discharge.discharge_state.__annotations__:
        return ClosedJaxpr(*cast(tuple[Jaxpr, list[Array]], discharge_state(*open_jaxpr(jaxpr))))  # JAX 0.7 took the two apart
    return discharge_state(jaxpr)


def array_type() -> type:
    """The class of JAX's arrays; to ask an array for it would start the backend, before the program has set it up."""
    return array.ArrayImpl


def ref_types() -> frozenset[type]:
    """The classes of JAX's mutable arrays: what reads or writes one cannot be run twice."""
    return frozenset(getattr(core, name) for name in ("Ref", "MutableArray") if hasattr(core, name))


def new_ref(value: Array) -> Any:
    """A mutable array that holds this value."""
    make = next(getattr(module, name) for module, name in ((jax, "new_ref"), (core, "mutable_array")) if hasattr(module, name))
    return make(value)


def ref_buffer(ref: Any) -> Array:
    """The array that a mutable array keeps its value in, and that is written to."""
    return getattr(ref, "_refs", ref)._buf


class CallSite(NamedTuple):
    """Where in a program an operation was called, and inside which transforms."""

    traceback: Traceback | None
    name_stack: source_info_util.NameStack


Site: TypeAlias = source_info_util.SourceInfo | CallSite


def here() -> tuple[Traceback | None, source_info_util.NameStack]:
    """What a `CallSite` is made of, for an operation that is being called now."""
    place = source_info_util.current()
    return place.traceback, place.name_stack


def at(site: CallSite) -> contextlib.AbstractContextManager[object]:
    """A context in which what is traced stands at a call site, and not where it is traced."""
    return source_info_util.user_context(site.traceback, name_stack=site.name_stack)


# Told of an operation: its primitive, operands, parameters and results.
Seen = Callable[[Primitive, Sequence[Pytree], dict[str, object], Pytree], None]


@contextlib.contextmanager
def eager_operations(seen: Seen, working: Busy) -> Iterator[None]:
    """While open, `seen(primitive, operands, parameters, results)` is told of every operation that runs outside of any trace, unless
    `working.now` is set."""
    original = core.EvalTrace.process_primitive

    def process_primitive(self: core.EvalTrace, primitive: Primitive, args: Sequence[Pytree], params: dict[str, object], /) -> Pytree:
        out = original(self, primitive, args := list(args), params)
        if not working.now:
            seen(primitive, args, params, out)
        return out

    core.EvalTrace.process_primitive = process_primitive
    try:
        yield
    finally:
        core.EvalTrace.process_primitive = original


def is_private(module: types.ModuleType) -> bool:
    """Whether a module of JAX's is none that a program has to do with."""
    return module.__name__.startswith("jax._src")


def outside_of_traces() -> contextlib.AbstractContextManager[object]:
    """A context in which operations run at once. While JAX hands an operation from one trace to the next, there is no trace to run in."""
    return core.eval_context()


def dispatches(code: types.CodeType) -> bool:
    """Whether with this code JAX begins to call a compiled function, or to run an operation that is not jitted, which is one too."""
    return (code.co_name, code.co_filename) in (("cache_miss", pjit.__file__), ("apply_primitive", dispatch.__file__))


def rebind(primitive: Primitive, params: dict[str, object], args: Sequence[object]) -> list[jax.Array]:
    """Run, or trace, an operation that was seen before."""
    out = primitive.bind(*args, **params)
    return list(out) if primitive.multiple_results else [out]
