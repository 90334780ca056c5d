"""Points of a sweep's grid in one line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retrofit.sweep_points import point_axes, point_label

NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1)
SINGLE = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), NAMES)
VALUES = st.one_of(SINGLE, st.lists(SINGLE))


def test_a_label_names_every_axis() -> None:
    assert point_label({"n_tasks": 2, "n_languages": 4}) == "n_tasks=2, n_languages=4"


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_axes_are_read_off_a_label(point: dict[str, object]) -> None:
    assert point_axes(point_label(point)) == {axis: str(value) for axis, value in point.items()}
