"""The exploding-gradient report, read whole."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from histories import history
from rich.console import Console

from nandetect.monitor.explosion import explosion
from nandetect.render import explosion as drawing


def diverging(until=40, broken=False):
    """From step 20 on the gradients grow by half in each step, the last layer's first, and the updates with them."""
    given = history(steps=until, loss=np.concatenate([np.full(20, 2.4), np.geomspace(2.4, 2.4e6, until - 20)]))
    t = np.arange(until)[:, None]
    start = np.array([28, 28, 24, 24, 20, 20])
    given.layers["gradient"][:] *= 10.0 ** np.maximum(0.25 * (t - start), 0)
    given.layers["update"][:] = given.layers["weight"] * 10.0 ** np.maximum(0.25 * (t - start) - 3, -3)
    given.series["gradient"][:] = np.sqrt(np.square(given.layers["gradient"]).sum(1))
    given.series["update"][:] = np.sqrt(np.square(given.layers["update"]).sum(1))
    if broken:
        given.series["loss"][-2:] = np.nan
        given.layers["gradient_nonfinite"][-2:] = 9
        given.layers["weight_nonfinite"][-1:] = 9
    return given


def test_the_report_says_which_layer_grew_first_when_by_how_much_why_and_what_to_try():
    report = explosion(diverging(broken=True))
    assert report is not None
    assert drawing.text(report) == WHOLE


WHOLE = """\
error: the gradient of `layers[2].w` exploded first: ten times its usual size at step 27, 2,187
       times at its largest, and was not finite from step 38 on

              gradient norm, from the input down
 layers[0].w │░░░░  ░                         ░░░░▒▒xx
 layers[1].w │░                            ░░░▒▒▒▓▓▓xx
 layers[2].w │░                       ░░░▒▒▒▒▓▓▓████xx
             └────────────────────────────────────────
              step 0                                39
              norm from  ░ 0.58  ▒ 3.1  ▓ 17  █ 94  x not finite

   = most likely a learning rate too high: updates are 0.12 times the size of the parameters (about
     0.001 is usual) at step 30; the loss went from 2.4 to 5.61e+05 and was not finite from step 38
     on
   = from `layers[2].w` 0.23 -> 5.1e+02; then `layers[1].w` at step 31 (219 times), `layers[0].w` at
     step 36 (22 times)
help: lower the learning rate ten times, or warm it up over the first few hundred steps [ND306]
"""


def test_an_encoding_without_shades_gets_letters_and_a_narrow_terminal_a_narrow_picture():
    report = explosion(diverging(broken=True))
    assert report is not None
    assert drawing.text(report, width=50, unicode=False) == NARROW


NARROW = """\
error: the gradient of `layers[2].w` exploded
       first: ten times its usual size at step 27,
       2,187 times at its largest, and was not
       finite from step 38 on

              gradient norm, from the input down
 layers[0].w |.... .                      ...--xx
 layers[1].w |.                        ...---++xx
 layers[2].w |.                    ...---+++###xx
             +-----------------------------------
              step 0                           39
              norm from  . 0.58  - 3.1  + 17  # 94  x not finite

   = most likely a learning rate too high: updates
     are 0.12 times the size of the parameters
     (about 0.001 is usual) at step 30; the loss
     went from 2.4 to 5.61e+05 and was not finite
     from step 38 on
   = from `layers[2].w` 0.23 -> 5.1e+02; then
     `layers[1].w` at step 31 (219 times),
     `layers[0].w` at step 36 (22 times)
help: lower the learning rate ten times, or warm
      it up over the first few hundred steps [ND306]
"""


def test_the_record_has_the_layers_from_input_to_output_and_the_levels_as_powers_of_ten():
    report = explosion(diverging())
    assert report is not None and report.first is not None
    assert [growth.layer for growth in report.growths] == ["layers[0].w", "layers[1].w", "layers[2].w"]
    assert (report.first.layer, report.broken, report.steps[0], report.until) == ("layers[2].w", None, 0, 39)
    assert len(report.levels) == 3 and {len(row) for row in report.levels} == {len(report.steps)}
    norm = np.log10(diverging().layers["gradient"][:, [1, 3, 5]].max(0))
    levels: Any = report.levels
    np.testing.assert_allclose([max(row) for row in levels], norm, rtol=1e-6)


def test_a_healthy_run_has_no_report():
    assert explosion(history()) is None


def test_a_gradient_that_was_too_large_from_the_first_step_is_said_to_be():
    gradient = history().layers["gradient"] * np.repeat([1e6, 1e5, 1e4], 2)
    gradient[:, 4] = 0.3
    report = explosion(history(gradient=gradient, loss=np.full(300, 2.5)))
    assert report is not None and report.first is None
    assert drawing.headline(report).startswith("the gradient is too large from the first step on: ")


def test_what_is_printed_to_a_pipe_has_no_colour_and_to_a_terminal_it_has():
    report = explosion(diverging())
    assert report is not None
    for terminal in (False, True):
        file = io.StringIO()
        drawing.show(report, Console(file=file, width=100, force_terminal=terminal, color_system="truecolor" if terminal else None))
        assert ("\x1b[" in file.getvalue()) is terminal
