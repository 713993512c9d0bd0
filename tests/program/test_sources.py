"""From an equation to the author's source: frames joined over enclosing equations, columns, scopes, whose file it is."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from nandetect import compat
from nandetect.program import rule_lines, sources
from nandetect.records import Frame, Source


def paths(closed, outer=()):
    """Every equation of a program, as the path of enclosing equations that leads to it."""
    for eqn in compat.open_jaxpr(closed)[0].eqns:
        yield [*outer, eqn]
        for _, sub in compat.sub_jaxprs(eqn):
            yield from paths(sub, (*outer, eqn))


def path_of(primitive, function, *args):
    return next(path for path in paths(jax.make_jaxpr(function)(*args)) if path[-1].primitive.name == primitive)


def source_of(primitive, function, *args) -> Source:
    *outer, eqn = path_of(primitive, function, *args)
    source = sources.source(eqn, outer)
    assert source is not None
    return source


def test_innermost_frame_of_the_user_is_the_source_and_the_callers_follow():
    def inner(x):
        return jnp.log(x)

    def outer(x):
        return inner(x) + 1

    source = source_of("log", outer, 1.0)
    assert (source.file, source.line) == (__file__, inner.__code__.co_firstlineno + 1)
    names = [frame.function.split(".")[-1] for frame in source.frames]
    assert names.index("inner") < names.index("outer")


@pytest.mark.parametrize(
    "wrap",
    [
        jax.jit,
        jax.checkpoint,
        jax.vmap,
        lambda f: lambda x: lax.scan(lambda c, y: (c + f(y), None), 0.0, x)[0],
        lambda f: lambda x: lax.cond(x[0] > 0, f, f, x),
        lambda f: lambda x: lax.while_loop(lambda y: y[0] > 0, f, x),
        lambda f: jax.grad(lambda x: f(x).sum()),
    ],
    ids=["jit", "remat", "vmap", "scan", "cond", "while", "grad"],
)
def test_frames_are_joined_over_whatever_encloses_the_equation(wrap):
    def inner(x):
        return jnp.log(x)

    wrapped = wrap(inner)

    def outer(x):
        return wrapped(x)

    source = source_of("log", outer, jnp.ones(3))
    names = [frame.function.split(".")[-1] for frame in source.frames]
    assert source.line == inner.__code__.co_firstlineno + 1
    assert names.index("inner") < names.index("outer")


def test_operation_inside_a_library_function_stands_on_the_users_line_with_the_librarys_frame_kept():
    optax = pytest.importorskip("optax")

    def loss(x):
        return optax.losses.log_cosh(x)

    path = path_of("log1p", loss, 1.0)
    source = sources.source(path[-1], path[:-1])
    assert source is not None
    assert (source.file, source.line) == (__file__, loss.__code__.co_firstlineno + 1)
    assert any("optax" in frame.file for frame in source.frames)


def test_excerpt_is_the_exact_expression_and_may_span_lines():
    def f(x):
        one = x + jnp.log(x * 2)
        return one * jnp.exp(
            x,
        )

    assert sources.excerpt(source_of("log", f, 1.0)) == "jnp.log(x * 2)"
    assert sources.excerpt(source_of("exp", f, 1.0)) == "jnp.exp( x, )"


def test_columns_count_bytes_so_that_letters_beyond_ascii_do_not_shift_them():
    def f(x):
        return x + len("größe") + jnp.log(x)

    assert sources.excerpt(source_of("log", f, 1.0)) == "jnp.log(x)"


def test_frame_without_columns_gives_its_whole_line():
    frame = inspect.currentframe()
    assert frame is not None
    assert sources.excerpt(Frame(file=__file__, line=frame.f_lineno, code="    a = b")) == "a = b"


def test_scope_is_what_the_author_named_without_the_transforms():
    def f(x):
        with jax.named_scope("encoder"):
            return jax.jit(lambda x: jax.checkpoint(named)(x))(x).sum()

    def named(x):
        with jax.named_scope("block"):
            return jnp.sqrt(x)

    for path in paths(jax.make_jaxpr(jax.vmap(jax.grad(f)))(jnp.ones((2, 3)))):
        if path[-1].primitive.name == "sqrt":
            parts = [part for part in sources.scope(path).split("/") if part in ("encoder", "block")]
            assert parts == ["encoder", "block"]
            assert not any(word in sources.scope(path) for word in ("jvp", "transpose", "vmap", "checkpoint", "("))


def test_second_trace_shows_the_line_of_a_rule_and_leaves_jax_as_it_was():
    @jax.custom_vjp
    def twice(x):
        return 2 * x

    def backward(_, out):
        return (jnp.exp(out),)

    twice.defvjp(lambda x: (twice(x), None), backward)

    def line():
        return source_of("exp", lambda x: jax.grad(twice)(x), 1.0).line

    rule = backward.__code__.co_firstlineno + 1
    with rule_lines.of_second_trace():
        assert line() == rule
    assert line() != rule
    with pytest.raises(ZeroDivisionError), rule_lines.of_second_trace():
        raise ZeroDivisionError
    assert line() != rule
