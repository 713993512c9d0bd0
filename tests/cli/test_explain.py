"""Every code has a page, and what stands on it is what the two ways of writing give."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from scipy import special

from nandetect import hazards
from nandetect.cli import explain, explain_view
from nandetect.errors import UsageError
from nandetect.findings import CODES
from nandetect.hazards.explaining import explained


def numbers(text):
    return [float(part) for part in re.findall(r"-?(?:nan|inf|\d[\d.e+-]*)", re.sub(r"d/d\w+", "", text))]


@pytest.mark.parametrize("code", sorted(hazards.BY_CODE))
def test_the_page_of_a_hazard_shows_that_before_breaks_and_after_does_not(code):
    page = explained(hazards.BY_CODE[code])
    assert not all(map(math.isfinite, numbers(page.breaks.before)))
    assert numbers(page.breaks.after) and all(map(math.isfinite, numbers(page.breaks.after)))
    if page.ordinary is not None:
        np.testing.assert_allclose(numbers(page.ordinary.before), numbers(page.ordinary.after), rtol=2e-2, atol=2e-2)
    for lines in (explain_view.told(page), explain_view.as_markdown(page)):
        text = "\n".join(lines)
        assert page.before in text and page.after in text and "None" not in text


def test_a_page_in_the_terminal():
    ordinary = ", ".join(f"{number:.4g}" for number in special.log_softmax([0.5, -1.0, 2.0]))
    assert (
        "\n".join(explain_view.told(explained(hazards.BY_CODE["ND201"])))
        == f"""\
ND201 log-of-softmax

softmax underflows to 0 once logits differ by about 88 (float32), and log(0) is -inf; take the log-softmax of the logits

  before  jnp.log(jax.nn.softmax(x))
  after   jax.nn.log_softmax(x)

at x = [0, 200] (float32)
  before  [-inf, 0]
  after   [-200, 0]

at x = [0.5, -1, 2] (float32)
  before  [{ordinary}]
  after   [{ordinary}]"""
    )


def test_without_a_code_all_are_listed():
    listed = list(explain_view.listed())
    assert len(listed) == len(CODES) + len(hazards.HAZARDS)
    assert listed == sorted(listed)
    assert "ND201  log-of-softmax" in listed and "ND301  exploding-gradient" in listed


@pytest.mark.parametrize("code", ["ND231", "nd231", "division-in-a-masked-branch"])
def test_a_code_may_be_given_as_its_name(capsys, code):
    explain.command(code, False, None)
    assert capsys.readouterr().out.startswith("ND231 division-in-a-masked-branch\n")


def test_a_finding_has_a_line(capsys):
    explain.command("exploding-gradient", False, None)
    assert capsys.readouterr().out.startswith("ND301 exploding-gradient: a finding about training health.")


def test_a_code_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="there is no code log-of-sofmax; did you mean log-of-softmax"):
        explain.command("log-of-sofmax", False, None)
    with pytest.raises(UsageError, match="`nandetect explain` lists all"):
        explain.command("rubbish!", False, None)


def test_the_document_holds_the_page(tmp_path):
    explain.command("ND201", False, str(tmp_path / "page.json"))
    page = json.loads((tmp_path / "page.json").read_text())["explain"]
    assert (page["code"], page["breaks"]["before"]) == ("ND201", "[-inf, 0]")
