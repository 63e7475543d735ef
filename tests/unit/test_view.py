"""The terminal view: drawn right, and plain where the terminal cannot do more."""

import pytest

from semagent.cli.view import posterior_bar, sparkline
from semagent.types import FocusBelief


def belief(focus_m: float = 5e-3, sigma_m: float = 1e-6) -> FocusBelief:
    return FocusBelief(
        sequence=1, settings_rev=1, frames=4, focus_m=focus_m, sigma_m=sigma_m, log_odds=9.0
    )


def test_the_sparkline_spans_the_values_but_does_not_blow_up_noise():
    assert sparkline([0.1, 0.5, 0.9], utf8=True) == "▁▅█"
    assert sparkline([0.900, 0.901, 0.900], utf8=True) == "▁▁▁"
    assert sparkline([0.1, 0.9], utf8=False) == "_#"
    assert sparkline([], utf8=True) == ""


@pytest.mark.parametrize(
    ("here_m", "place"), [(5e-3, 10), (4.9968e-3, 2), (5.0032e-3, 18), (5.002e-3, 15)]
)
def test_the_bar_marks_where_the_microscope_is(here_m: float, place: int):
    text = posterior_bar(belief(), here_m, 0.5e-6, width=21, utf8=True)
    low, bar, high = text.plain.rsplit(" um", 1)[0].replace(" um", "", 1).split(" ")
    assert (low, high) == ("-4.00", "+4.00")
    assert bar.index("┃") == place
    assert len(bar) == 21


def test_the_bar_reaches_as_far_as_the_microscope_is_away():
    text = posterior_bar(belief(), 5.05e-3, None, width=21, utf8=False)
    assert "60.00 um" in text.plain
    assert "|" in text.plain
    assert text.plain.isascii()


def test_the_marker_is_green_only_within_the_depth_of_field():
    def style(here_m: float) -> str:
        text = posterior_bar(belief(), here_m, 2e-6, width=41, utf8=True)
        return next(str(span.style) for span in text.spans if text.plain[span.start] == "┃")

    assert style(5.0015e-3) == "bold green"
    assert style(5.0035e-3) == "bold red"
