"""What is checked at every border, once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sslcourse.errors import CourseError, whole_number


@given(st.integers(-50, 50), st.integers(-50, 50), st.none() | st.integers(0, 60))
def test_a_whole_number_is_taken_within_its_bounds_alone(number, least, room):
    most = None if room is None else least + room
    fits = number >= least and (most is None or number <= most)
    for form in (number, np.int64(number), np.int8(number)):
        if fits:
            assert whole_number("steps", form, least, most) == number
            assert type(whole_number("steps", form, least, most)) is int
        else:
            bounds = f"at least {least}" if most is None else f"from {least} to {most}"
            with pytest.raises(CourseError, match=f"^steps must be a whole number (of )?{bounds}, and is .*{number}"):
                whole_number("steps", form, least, most)


@pytest.mark.parametrize("value", [True, False, np.bool_(True), 3.0, np.float32(3), "3", None, [3], float("nan"), 3j])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(CourseError, match="steps must be a whole number of at least 1, and is"):
        whole_number("steps", value)
