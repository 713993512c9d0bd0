"""`nandetect inspect`: every equation stands under the line that it was written on, in its pass, with its shapes."""

from __future__ import annotations

import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nandetect.errors import UsageError
from nandetect.render import listing as render
from nandetect.targets import arguments, target, traceable
from nandetect.targets import equations as tracing


@pytest.fixture
def write(tmp_path):
    """Write a module and return its path as text."""

    def written(code: str, name: str = "module_under_test.py") -> str:
        file = tmp_path / name
        file.write_text(textwrap.dedent(code))
        return str(file)

    return written


LOSS = """\
import jax
import jax.numpy as jnp


def loss(w, x):
    probs = jax.nn.sigmoid(x @ w)
    return -jnp.mean(jnp.log(probs))
"""
SHAPES = ("f32[3]", "f32[8,3]")


def inspected(text: str, **options):
    return tracing.listing(traceable.load(text, **options))


def equations(listing, line: int, phase: str = "forward") -> list[str]:
    """The primitives written on a line, in order."""
    found = [one for one in listing.program.all_equations() if not one.call and one.frame and one.frame.line == line]
    return [one.primitive for one in found if one.phase == phase]


def refusal(*args, **options) -> str:
    with pytest.raises(UsageError) as refused:
        inspected(*args, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_every_equation_stands_on_the_line_that_it_was_written_on(write):
    listing = inspected(write(LOSS) + ":loss", shapes=SHAPES)
    assert equations(listing, 6) == ["dot_general", "logistic"]
    assert equations(listing, 7) == ["log", "reduce_sum", "div", "neg"]


def test_the_gradient_adds_the_backward_equations_of_each_line(write):
    listing = inspected(write(LOSS) + ":loss", shapes=SHAPES, gradient=True)
    assert equations(listing, 7) == ["log", "reduce_sum", "div", "neg"]
    assert "div" in equations(listing, 7, "backward")
    assert "dot_general" in equations(listing, 6, "backward")


def test_an_update_after_the_gradient_is_told_from_both_passes(write):
    code = LOSS + "\n\ndef step(w, x):\n    return w - 0.1 * jax.grad(loss)(w, x)\n"
    listing = inspected(write(code) + ":step", shapes=SHAPES)
    assert equations(listing, 11, "update") == ["mul", "sub"]


def test_a_derivative_in_forward_mode_is_told_from_the_value(write):
    code = LOSS + "\n\ndef slope(w, x):\n    return jax.jvp(lambda x: jnp.sqrt(x @ w), (x,), (x,))\n"
    listing = inspected(write(code) + ":slope", shapes=SHAPES)
    assert equations(listing, 11) == ["dot_general", "sqrt"]
    assert equations(listing, 11, "backward") == ["dot_general", "div", "mul"]


def test_the_whole_text_of_a_small_function(write):
    path = write("import jax.numpy as jnp\n\n\ndef f(x):\n    y = jnp.exp(x)\n\n    return y / 2.0\n")
    assert "\n".join(render.annotated(inspected(path + ":f", shapes=["f32[8]"]))) == textwrap.dedent(
        f"""\
        {path}:f: 2 equations (2 forward)
          takes   x f32[8]
          returns f32[8]

        {path}
        4 | def f(x):
        5 |     y = jnp.exp(x)
          |   forward   jnp.exp(x)                          exp f32[8] -> f32[8]
        6 |
        7 |     return y / 2.0
          |   forward   y / 2.0                             div f32[8] 2.0 -> f32[8]"""
    )


def test_the_whole_jaxpr_of_a_small_function(write):
    path = write("import jax.numpy as jnp\n\n\ndef f(x):\n    return jnp.exp(x) / 2.0\n")
    lines = list(render.jaxpr(inspected(path + ":f", shapes=["f32[8]"])))
    assert lines[:3] == [f"# {path}:f", "# a:f32[8] is x", "{ lambda a:f32[8]. let"]
    assert lines[3].split("#")[0].strip() == "b:f32[8] = exp a"
    assert lines[3].split("# ")[1] == f"{path}:5 forward: jnp.exp(x)"
    assert lines[4].split("#")[0].strip() == "c:f32[8] = div b 2.0:f32[]"
    assert lines[4].split("# ")[1] == f"{path}:5 forward: jnp.exp(x) / 2.0"
    assert lines[5:] == ["  in (c) }"]


def test_equations_inside_loops_and_branches_say_so(write):
    path = write(
        """\
        import jax.numpy as jnp
        from jax import lax


        def f(x):
            def body(carry, _):
                return lax.cond(carry.sum() > 0, jnp.exp, jnp.sin, carry), None

            return lax.scan(body, x, length=5)[0]
        """
    )
    listing = inspected(path + ":f", shapes=["f32[8]"])
    context = {one.primitive: one.context for one in listing.program.all_equations()}
    assert context["reduce_sum"] == ("scan of 5",)
    assert (context["sin"], context["exp"]) == (("scan of 5", "branch 0 of cond"), ("scan of 5", "branch 1 of cond"))
    assert context["scan"] == ()


def test_alike_equations_of_a_line_are_counted(write):
    path = write("import jax.numpy as jnp\n\ndef f(x):\n    for _ in range(6):\n        x = jnp.sin(x)\n    return x\n")
    text = "\n".join(render.annotated(inspected(path + ":f", shapes=["f32[8]"])))
    assert "sin f32[8] -> f32[8]   x6" in text


def test_a_jitted_helper_shows_its_equations_at_its_own_lines(write):
    path = write("import jax\n\n@jax.jit\ndef square(x):\n    return x * x\n\n\ndef f(x):\n    return square(x) + 1.0\n")
    listing = inspected(path + ":f", shapes=["f32[8]"])
    assert (equations(listing, 5), equations(listing, 9)) == (["mul"], ["add"])


def test_a_model_file_alone_is_its_loss_and_gradient_on_the_embedded_digits(write):
    code = LOSS.replace("def loss(w, x)", "def other(w, x)") + textwrap.dedent(
        """

        def init(key, sizes):
            return jax.random.normal(key, (sizes[0], sizes[-1]))


        def apply(params, inputs):
            return inputs @ params


        def cross_entropy(logits, labels):
            return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))


        LOSSES = {"stable": cross_entropy}
        """
    )
    listing = inspected(write(code))
    assert [atom.type for atom in listing.program.inputs] == ["f32[64,10]", "f32[40,64]", "f32[40,10]"]
    assert listing.results == ("[0]", "[1]")
    assert "dot_general" in equations(listing, 15) and "dot_general" in equations(listing, 15, "backward")


def test_arguments_come_from_an_archive_by_name_or_in_order(write, tmp_path):
    path = write("def f(params, x):\n    return x @ params['w'] + params['b']\n")
    w, b, x = np.ones((3, 2), np.float32), np.ones(2, np.float32), np.ones(3, np.float32)
    np.savez(tmp_path / "args.npz", **{"params/w": w, "params/b": b, "x": x})
    listing = inspected(path + ":f", archive=tmp_path / "args.npz")
    assert dict(zip(listing.arguments, [atom.type for atom in listing.program.inputs], strict=True)) == {
        "params['b']": "f32[2]",
        "params['w']": "f32[3,2]",
        "x": "f32[3]",
    }
    path = write("def g(w, x):\n    return x @ w\n", "in_order.py")
    np.savez(tmp_path / "in_order.npz", w, x)
    assert [atom.type for atom in inspected(path + ":g", archive=tmp_path / "in_order.npz").program.inputs] == ["f32[3,2]", "f32[3]"]


def test_arguments_that_the_module_keeps_are_used(write):
    path = write("import jax.numpy as jnp\n\nexample_args = (jnp.ones(5), 2.0)\n\ndef f(x, y):\n    return x * y\n")
    assert [atom.type for atom in inspected(path + ":f").program.inputs] == ["f32[5]", "f32[]"]


def test_make_brings_the_step_and_its_arguments(write):
    path = write("import jax\nimport jax.numpy as jnp\n\ndef make():\n    return jax.jit(lambda x: jnp.exp(x)), (jnp.ones(5),)\n")
    assert equations(inspected(path + ":make"), 5) == ["exp"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "loss(w, x) needs arguments: give --shape f32[8,64] once for each, or --args FILE.npz"),
        ({"shapes": ["f32[3]"]}, "--shape was given 1 time, and loss(w, x) does not take that"),
        ({"shapes": ["f32[3]", "8x3"]}, "--shape '8x3' is not a shape"),
        ({"shapes": ["f32[3]", "f31[8,3]"]}, "there is no dtype f31"),
        ({"shapes": ["f32[3]", "f64[8,3]"]}, "set JAX_ENABLE_X64=1"),
        ({"shapes": ["f32[3]", "f32[8,4]"]}, "could not be traced on (float32[3], float32[8,4]): TypeError"),
    ],
)
def test_missing_or_unfitting_arguments_are_refused_in_one_line(write, options, said):
    assert said in refusal(write(LOSS) + ":loss", **options)


def test_a_refusal_in_tracing_names_the_users_line(write):
    path = write(LOSS)
    assert refusal(path + ":loss", shapes=["f32[3]", "f32[8,4]"]).endswith(f"{path}:6")


@pytest.mark.parametrize(
    ("code", "text", "said"),
    [
        ("", "missing.py:f", "there is no file missing.py"),
        ("", "no_such_module_at_all:f", "there is no module no_such_module_at_all"),
        ("", "json", "json names no function"),
        ("x = 1", "{path}:f", "has no `f`"),
        ("f = 1", "{path}:f", "`f` in {path} is not a function but of type int"),
        ("f = 1/0", "{path}:f", "could not be imported: ZeroDivisionError: division by zero, at {path}:1"),
        ("def f(:", "{path}:f", "could not be imported: SyntaxError"),
        ("import sys; sys.exit(3)", "{path}:f", "could not be imported: SystemExit: 3"),
        ("def f(x): return x", "{path}", "has no `init`: a model file defines"),
    ],
)
def test_a_target_that_cannot_be_loaded_is_refused_in_one_line(write, code, text, said):
    path = write(code)
    assert said.format(path=path) in refusal(text.format(path=path), shapes=["f32[3]"] if "{path}:" in text else ())


def test_a_gradient_of_what_is_not_one_float_is_refused(write):
    path = write("def f(x):\n    return x * 2\n\ndef g(x):\n    return 1.5 * x.sum()\n")
    assert "returns float32[3]" in refusal(path + ":f", shapes=["f32[3]"], gradient=True)
    assert "not made of floats" in refusal(path + ":g", shapes=["i32[3]"], gradient=True)


def test_an_archive_that_is_not_one_is_refused(write, tmp_path):
    (tmp_path / "broken.npz").write_text("not an archive")
    assert "is not an .npz of plain arrays" in refusal(write(LOSS) + ":loss", archive=tmp_path / "broken.npz")
    assert "there is no file" in refusal(write(LOSS) + ":loss", archive=tmp_path / "absent.npz")


def test_shapes_are_read_as_jaxprs_write_them():
    assert arguments.shape("f32[8,64]") == jax.ShapeDtypeStruct((8, 64), jnp.float32)
    assert arguments.shape("bf16[]") == jax.ShapeDtypeStruct((), jnp.bfloat16)
    assert arguments.shape("bool[2]") == jax.ShapeDtypeStruct((2,), jnp.bool_)
    assert arguments.shape("key[3]").shape == (3,)


def test_a_method_is_a_target(write):
    path = write("class Model:\n    @staticmethod\n    def f(x):\n        return 2 * x\n\n\ndef f(x):\n    return 3 * x\n")
    assert target.load(path + ":Model.f").function(5) == 10


def test_the_carried_model_is_known_by_its_name():
    listing = inspected("mlp", loss="xlogy")
    assert {passage.file.split("/")[-1] for passage in listing.passages} == {"mlp.py"}
    assert [atom.type for atom in listing.program.inputs[-2:]] == ["f32[40,64]", "f32[40,10]"]
