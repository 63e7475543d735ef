import pytest

from semagent.lengths import show_distance, show_distances, show_length


@pytest.mark.parametrize(
    ("length_m", "text"),
    [
        (1.23456e-3, "1.23 mm"),
        (999.6e-6, "1.00 mm"),
        (123.4e-6, "123 µm"),
        (33.67e-6, "33.7 µm"),
        (-2.763e-6, "-2.76 µm"),
        (999.6e-9, "1.00 µm"),
        (497.8e-9, "498 nm"),
        (12.34e-9, "12 nm"),
        (0.4e-9, "0.4 nm"),
        (0.0, "0.0 nm"),
        (None, "-"),
    ],
)
def test_lengths_have_the_digits_that_count(length_m: float | None, text: str):
    assert show_length(length_m) == text


def test_a_way_has_its_sign():
    assert [show_length(way_m, sign=True) for way_m in (30.102e-6, -30.102e-6)] == [
        "+30.1 µm",
        "-30.1 µm",
    ]


def test_working_distances_are_told_to_a_tenth_of_a_micrometre():
    assert show_distance(5.03214e-3) == "5.0321 mm"
    assert show_distance(None) == "-"
    assert show_distances(5.02e-3, 5.04e-3) == "5.0200 to 5.0400 mm"
    assert show_distances(4.0, -4.5e-3, between="or") == "4000.0000 or -4.5000 mm"
