"""Numbers, times and sizes as the messages say them."""

from __future__ import annotations

import numpy as np
import pytest

from nandetect import wording


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (0.0, "", "0.0"),
        (3, "int32", "3"),
        (True, "bool", "True"),
        (1234.5678, "float32", "1235"),
        (np.float32(0.99999994), "float32", "0.99999994"),
        (1e30, "float32", "1e+30"),
        (float("nan"), "", "nan"),
        (float("-inf"), "", "-inf"),
        (complex(1.0, -2.5), "complex64", "1.0 - 2.5j"),
    ],
)
def test_a_value_is_told_in_four_digits_or_in_all_where_it_would_look_too_round(value, dtype, text):
    assert wording.number(value, dtype) == text


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (wording.short(-0.0), "0"),
        (wording.short(1.23456), "1.235"),
        (wording.short(1.23456, 3), "1.23"),
        (wording.precise(-0.0), "-0"),
        (wording.rough(float("nan")), "inf"),
        (wording.decimal(0.0441942), "0.0442"),
        (wording.decimal(1.41421), "1.41"),
        (wording.magnitude(88.7228), "88.7"),
        (wording.magnitude(1024.0), "1024"),
        (wording.whole(12.5), "12.5"),
        (wording.whole(1250.4), "1,250"),
        (wording.share(1.0), "100%"),
        (wording.share(0.973), "97.3%"),
        (wording.counted(1, "step"), "1 step"),
        (wording.counted(1250, "step"), "1,250 steps"),
    ],
)
def test_a_number_is_said_in_the_digits_that_its_reader_wants(said, text):
    assert said == text


@pytest.mark.parametrize(
    ("factor", "seen", "off", "grown", "fast"),
    [
        (3.14, "3.1 times", "3.1 times", "3 times", "3.1 times"),
        (31.6, "32 times", "31.6 times", "32 times", "32 times"),
        (2e6, "2e+06 times", "2,000,000 times", "2.0e+06 times", "2,000,000 times"),
        (float("inf"), "inf times", "inf times", "beyond measure", "inf times"),
    ],
)
def test_a_factor_is_said_by_what_it_is_of(factor, seen, off, grown, fast):
    assert (wording.times(factor), wording.times_off(factor)) == (seen, off)
    assert (wording.times_grown(factor), wording.times_as_fast(factor)) == (grown, fast)


@pytest.mark.parametrize(
    ("seconds", "call", "race", "run"),
    [
        (71e-6, "71 us", "0.071 ms", "0 s"),
        (0.0051, "5.1 ms", "5.1 ms", "0 s"),
        (1.25, "1.2 s", "1.25 s", "1 s"),
        (125.0, "125 s", "125 s", "2 min 5 s"),
        (12_000.0, "12,000 s", "12000 s", "3 h 20 min"),
        (100_000.0, "100,000 s", "100000 s", "1 d 3 h"),
    ],
)
def test_a_time_is_said_in_the_units_of_a_call_a_race_or_a_run(seconds, call, race, run):
    assert (wording.call_time(seconds), wording.race_time(seconds), wording.run_time(seconds)) == (call, race, run)


def test_what_is_never_reached_takes_no_time():
    assert wording.race_time(float("inf")) == "never"


def test_a_rate_is_said_by_itself_or_by_the_time_of_a_step():
    assert wording.steps_per_second(1250.4) == wording.pace(1 / 1250.4) == "1,250 steps/s"
    assert wording.pace(0.3) == "3.3 steps/s"


def test_bytes_are_said_in_megabytes_of_either_kind_and_a_file_in_kilobytes():
    assert (wording.megabytes(1.5e6), wording.megabytes(1.25e9)) == ("1.5 MB", "1,250 MB")
    assert (wording.memory(2**20), wording.memory(2000 * 2**20)) == ("1.0 MB", "2,000 MB")
    assert (wording.file_size(12_000), wording.file_size(1_200_000)) == ("12 kB", "1.2 MB")
