"""Primitives that other libraries define, also under the names of JAX's own: what they give is checked, whatever they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Primitive
from jax.interpreters import mlir

import nandetect as nd
from nandetect.records import Report


def report_of(function: Callable[..., Any], *args: Any) -> Report:
    """The report of a step that breaks."""
    report = nd.locate(function, *args)
    assert report is not None
    return report


# Names that JAX's primitives have, one of each kind of rule that nandetect keeps by name.
NAMES = (
    "linear_solve",
    "custom_linear_solve",
    "scan",
    "while",
    "cond",
    "shard_map",
    "gather",
    "select_n",
    "sort",
    "dot_general",
    "reduce_sum",
)
NAMES += (
    "div",
    "convert_element_type",
    "cumsum",
    "reduce_window",
    "broadcast_in_dim",
    "jit",
    "pure_callback",
    "call_hi_primitive",
    "cholesky",
)


def of_a_library(name: str, double=lambda x: [jnp.multiply(x, 2)]) -> Primitive:
    """A primitive of one operand, one result and no parameters, which doubles."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(double)
    primitive.def_abstract_eval(lambda x: [x])
    mlir.register_lowering(primitive, mlir.lower_fun(double, multiple_results=True))
    return primitive


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_before_another_librarys_primitive_is_found(find, xs, name, strict):
    primitive = of_a_library(name)

    @jax.jit
    def f(x):
        return primitive.bind(jnp.log(x))[0] + 1  # <-- origin

    assert find(f, xs, strict=strict).origin.primitive == "log"


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_after_and_in_another_librarys_primitive_is_found(xs, name):
    primitive = of_a_library(name)
    assert report_of(jax.jit(lambda x: jnp.log(primitive.bind(x * 1)[0])), xs).origin.primitive == "log"
    assert report_of(jax.jit(lambda x: primitive.bind(x * 1.6e38)[0] * 1), xs).origin.primitive == name


def test_another_librarys_primitive_is_given_arrays_of_jaxs_own(xs):
    primitive = of_a_library("in_place", lambda x: [x.at[...].multiply(2)])
    assert report_of(jax.jit(lambda x: jnp.log(primitive.bind(x * 1)[0])), xs).origin.primitive == "log"


@pytest.mark.parametrize("transform", ["plain", "grad", "vmap"])
@pytest.mark.parametrize("solver", ["LU", "CG", "GMRES"])
def test_what_is_made_of_a_linear_solve_of_lineax_is_followed(find, solver, transform):
    lineax = pytest.importorskip("lineax")
    method = {"LU": lineax.LU, "CG": lambda: lineax.CG(1e-5, 1e-5), "GMRES": lambda: lineax.GMRES(1e-5, 1e-5)}[solver]()

    def solved(matrix, right):
        operator = lineax.MatrixLinearOperator(matrix, lineax.positive_semidefinite_tag if solver == "CG" else ())
        return lineax.linear_solve(operator, right, method, throw=False).value

    def f(matrix, right):
        return jnp.log(solved(matrix, right) - 5.0).sum()  # <-- origin

    over = {"plain": f, "grad": jax.value_and_grad(f), "vmap": lambda m, r: jax.vmap(f, (None, 0))(m, jnp.stack([r, r]))}[transform]
    assert find(jax.jit(over), jnp.eye(2), jnp.ones(2)).origin.primitive == "log"
