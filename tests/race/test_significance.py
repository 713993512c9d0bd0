"""What a race is judged by: an exact test over the seeds, and each entrant's own clock."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from nandetect.race import clock, significance

# Charles Darwin's maize, crossed less self-fertilised, in eighths of an inch, as Fisher gives it.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def test_the_test_gives_fishers_own_count():
    """The Design of Experiments, section 21: of the 32,768 choices of signs 863 reach his sum of 314 on either side."""
    assert sum(DARWIN) == 314
    assert significance.sign_flip(DARWIN) == 2 * 863 / 2**15


@pytest.mark.parametrize("count", [1, 2, 5, 8, 11])
def test_the_test_is_what_trying_every_choice_of_signs_gives(count):
    rng = random.Random(count)
    for _ in range(5):
        seen = [rng.randint(-9, 9) for _ in range(count)]
        sums = [sum(map(int.__mul__, signs, seen)) for signs in itertools.product((-1, 1), repeat=count)]
        expected = sum(abs(one) >= abs(sum(seen)) for one in sums) / len(sums)
        assert significance.sign_flip([one / 10 for one in seen]) == expected


def test_where_all_seeds_agree_p_is_the_smallest_and_identical_measurements_tie():
    assert significance.sign_flip([0.3] * 8) == significance.smallest_p(8, 1) == 2 / 256
    assert significance.sign_flip([0.0] * 8) == 1.0
    assert significance.sign_flip([1e-3] * 32) == 2 / 2**32


def test_without_a_difference_the_test_is_wrong_in_no_more_than_one_race_of_twenty():
    rng = np.random.default_rng(0)
    p_values = [significance.sign_flip(rng.normal(size=8).tolist()) for _ in range(2000)]
    assert 0.035 < np.mean(np.array(p_values) <= 0.05) < 0.06  # 12 of 256 is 0.047


def test_holms_correction_is_that_of_r():
    """The expected values are R's: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")."""
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_hiccup_of_the_machine_is_on_nobodys_clock():
    quiet = [(10, 0.01)] * 50
    disturbed = [(10, 0.01), (10, 3.0), *quiet[2:]]
    np.testing.assert_allclose(clock.times(disturbed), clock.times(quiet))
    np.testing.assert_allclose(clock.times(quiet), 0.001 * np.arange(1, 501))


def test_a_step_that_grows_dearer_is_on_the_clock():
    turns = [(1, 1.0)] * 100 + [(1, 2.0)] * 100
    assert clock.times(turns)[-1] == pytest.approx(300.0)
    assert clock.times([]).tolist() == []
