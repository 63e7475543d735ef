import math
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semagent.errors import ConfigError
from semagent.options import parse_options
from semagent.sanity import FrameChecker, SanityOptions
from semagent.types import Frame, FrameFault, FrameHeader, Optics, Pixels, Scan, StagePosition

NOW_NS = 100_000_000_000
ROWS_ALLOWED = SanityOptions().max_unwritten_rows


def good(
    height: int = 96, width: int = 128, *, level: float = 120, noise: float = 6, seed: int = 0
) -> Pixels:
    """Blobs and noise; uint8."""
    rng = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 6)
    field = level + 30 * blobs / blobs.std() + rng.normal(0, noise, (height, width))
    return np.clip(np.rint(field), 0, 255).astype(np.uint8)


def framed(pixels: Pixels, *, info_bar_px: int = 0, age_s: float = 0.0, **scan: Any) -> Frame:
    height, width = pixels.shape
    shape = {"width_px": width, "height_px": height, "bit_depth": 8 * pixels.itemsize}
    return Frame(
        FrameHeader(
            sequence=1,
            monotonic_ns=NOW_NS - round(age_s * 1e9),
            wall_ns=0,
            detector="SE",
            scan=Scan(**(shape | scan)),
            optics=Optics(working_distance_m=0.005),
            stage=StagePosition(),
            settings_rev=1,
            info_bar_px=info_bar_px,
        ),
        np.array(pixels),
    )


def faults_of(*frames: Frame, repeats_frames: bool = False, **options: Any) -> set[FrameFault]:
    """The faults of the last of these frames, shown in this order."""
    checker = FrameChecker(SanityOptions(**options), repeats_frames=repeats_frames)
    found: tuple[FrameFault, ...] = ()
    for frame in frames:
        found = checker.check(frame, now_ns=NOW_NS)
    return set(found)


# -- good frames ------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    level=st.floats(40, 215),
    noise=st.floats(1, 40),
    sixteen_bit=st.booleans(),
    seed=st.integers(0, 1000),
    info_bar_px=st.integers(0, 20),
)
def test_good_frames_pass(
    level: float, noise: float, sixteen_bit: bool, seed: int, info_bar_px: int
) -> None:
    frames = []
    for turn in range(2):
        pixels = good(level=level, noise=noise, seed=seed + turn)
        if info_bar_px:
            pixels[-info_bar_px:] = 0
        frames.append(
            framed(
                pixels.astype(np.uint16) * 16 if sixteen_bit else pixels, info_bar_px=info_bar_px
            )
        )
    assert faults_of(*frames) == set()


def test_real_micrographs_pass(shared_data: Path) -> None:
    checker = FrameChecker(SanityOptions())
    files = sorted((shared_data / "train").glob("*/*.png"))
    assert files
    # The many small patches of one source are alike.
    for path in [f for f in files if "128" not in f.parent.name] + files[-100:]:
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert checker.check(framed(pixels), now_ns=NOW_NS) == (), path


def test_a_dark_specimen_that_fades_to_black_passes() -> None:
    rng = np.random.default_rng(0)
    brightness = np.maximum(np.linspace(90, -40, 200), -40)[:, None]
    pixels = np.clip(brightness + rng.normal(0, 6, (200, 300)), 0, 255).astype(np.uint8)
    # At least a tenth of the rows have nothing but black.
    assert (pixels.max(axis=1) == 0).sum() > 20
    assert faults_of(framed(pixels)) == set()


def test_averaging_that_removes_the_noise_of_a_flat_field_passes() -> None:
    rng = np.random.default_rng(1)
    field = 60 + np.cumsum(rng.normal(0, 0.02, 256))[:, None] + rng.normal(0, 0.05, (256, 256))
    pixels = np.rint(field).astype(np.uint8)
    pixels[100:140, 80:170] = good(40, 90)
    assert (pixels.max(axis=1) == pixels.min(axis=1)).sum() > 50
    assert faults_of(framed(pixels)) == set()


def test_a_particle_on_black_passes() -> None:
    pixels = np.zeros((128, 128), np.uint8)
    pixels[::3, ::2] = np.random.default_rng(0).integers(0, 3, pixels[::3, ::2].shape)
    pixels[30:90, 20:110] = good(60, 90)
    assert faults_of(framed(pixels)) == set()


# -- incomplete -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(2, 95 - ROWS_ALLOWED),
    extra=st.integers(1, 200),
    kind=st.sampled_from(["black", "white", "grey", "repeated"]),
    partial=st.integers(0, 127),
    seed=st.integers(0, 50),
)
def test_rows_that_were_never_written_are_found(
    start: int, extra: int, kind: str, partial: int, seed: int
) -> None:
    pixels = good(seed=seed)
    stop = min(start + ROWS_ALLOWED + extra, len(pixels))
    if kind == "repeated":
        pixels[start:stop] = pixels[start - 1]
    else:
        value = {"black": 0, "white": 255, "grey": 128}[kind]
        pixels[start:stop] = value
        # The line in which the scan stopped.
        pixels[start - 1, partial:] = value
    assert FrameFault.INCOMPLETE in faults_of(framed(pixels))


@settings(max_examples=30, deadline=None)
@given(written=st.integers(1, 95 - ROWS_ALLOWED), at_top=st.booleans())
def test_rows_left_over_from_the_previous_frame_are_found(written: int, at_top: bool) -> None:
    before, after = good(seed=1), good(seed=2)
    mixed = after.copy()
    if at_top:
        mixed[: len(mixed) - written] = before[: len(mixed) - written]
    else:
        mixed[written:] = before[written:]
    assert faults_of(framed(before), framed(mixed)) == {FrameFault.INCOMPLETE}
    assert faults_of(framed(before), framed(mixed), repeats_frames=True) == set()


@pytest.mark.parametrize("rows", [1, ROWS_ALLOWED, ROWS_ALLOWED + 1])
@pytest.mark.parametrize("place", ["top", "middle", "bottom"])
def test_as_many_rows_as_allowed_pass_and_one_more_does_not(rows: int, place: str) -> None:
    pixels = good()
    start = {"top": 0, "middle": 40, "bottom": len(pixels) - rows}[place]
    pixels[start : start + rows] = 0
    expected = {FrameFault.INCOMPLETE} if rows > ROWS_ALLOWED else set()
    assert faults_of(framed(pixels)) == expected
    assert faults_of(framed(pixels), max_unwritten_rows=rows) == set()


def test_only_the_first_line_was_written() -> None:
    pixels = np.zeros((96, 128), np.uint8)
    pixels[0] = 200
    assert FrameFault.INCOMPLETE in faults_of(framed(pixels))


def test_rows_under_the_information_bar_are_not_looked_at() -> None:
    pixels = good()
    pixels[-20:] = 0
    assert faults_of(framed(pixels, info_bar_px=20)) == set()
    assert faults_of(framed(pixels, info_bar_px=20 - ROWS_ALLOWED - 1)) == {FrameFault.INCOMPLETE}


# -- frozen -----------------------------------------------------------------------------------


def test_the_same_pixels_twice_are_frozen_unless_the_source_may_repeat() -> None:
    frame = framed(good())
    assert faults_of(frame, framed(good())) == {FrameFault.FROZEN}
    assert faults_of(frame, framed(good()), repeats_frames=True) == set()


def test_one_pixel_of_difference_in_every_row_is_another_frame() -> None:
    other = good()
    other[:, 77] ^= 1
    assert faults_of(framed(good()), framed(other)) == set()


def test_frozen_is_judged_without_the_information_bar() -> None:
    clock = good()
    clock[-10:] = good(10, seed=9)
    frames = [framed(each, info_bar_px=10) for each in (good(), clock)]
    assert faults_of(*frames) == {FrameFault.FROZEN}


def test_only_the_frame_just_before_counts() -> None:
    frames = [framed(good(seed=seed)) for seed in (1, 2, 1)]
    assert faults_of(*frames) == set()


@pytest.mark.parametrize("other", [good(80, 128), good(96, 120), good().astype(np.uint16)])
def test_after_a_change_of_format_nothing_is_frozen(other: Pixels) -> None:
    assert faults_of(framed(other), framed(good())) == set()


# -- saturated and blank ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "top"), [(np.uint8, 255), (np.uint16, 1023), (np.uint16, 4095), (np.uint16, 65535)]
)
@pytest.mark.parametrize(("end", "limit"), [("white", 0.3), ("black", 0.7)])
def test_the_limit_of_saturated_pixels(dtype: Any, top: int, end: str, limit: float) -> None:
    for excess in (-0.02, 0.02):
        pixels = np.clip(good(), 1, 254).astype(dtype) * dtype(top // 255)
        hit = np.random.default_rng(0).permutation(pixels.size)[
            : round((limit + excess) * pixels.size)
        ]
        pixels.flat[hit] = top if end == "white" else 0
        expected = {FrameFault.SATURATED} if excess > 0 else set()
        assert faults_of(framed(pixels)) == expected


@pytest.mark.parametrize("value", [1, 100, 253])
@pytest.mark.parametrize("flicker", [False, True])
def test_a_frame_without_variation_is_blank(value: int, flicker: bool) -> None:
    pixels = np.full((96, 128), value, np.uint8)
    if flicker:
        pixels += np.random.default_rng(0).integers(0, 2, pixels.shape, np.uint8)
        pixels[0] = value
    assert faults_of(framed(pixels)) == {FrameFault.BLANK}


def test_the_faintest_noise_is_not_blank() -> None:
    pixels = np.rint(np.random.default_rng(0).normal(100, 0.8, (96, 128))).astype(np.uint8)
    assert faults_of(framed(pixels)) == set()


@pytest.mark.parametrize("value", [0, 255])
def test_faults_combine(value: int) -> None:
    frame = framed(np.full((96, 128), value, np.uint8), age_s=60, width_px=64)
    found = FrameChecker(SanityOptions())
    found.check(frame, now_ns=NOW_NS)
    assert found.check(frame, now_ns=NOW_NS) == (
        FrameFault.FROZEN,
        FrameFault.SATURATED,
        FrameFault.BLANK,
        FrameFault.WRONG_SIZE,
        FrameFault.STALE,
    )


# -- what the header says ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "optics", [{"working_distance_m": math.nan}, {"convergence_angle_rad": math.inf}]
)
def test_optics_that_are_no_numbers(optics: dict[str, float]) -> None:
    frame = framed(good())
    header = msgspec.structs.replace(
        frame.header, optics=msgspec.structs.replace(frame.header.optics, **optics)
    )
    assert faults_of(Frame(header, frame.pixels)) == {FrameFault.NOT_A_NUMBER}


def test_a_pixel_size_that_is_no_number() -> None:
    assert faults_of(framed(good(), pixel_size_m=math.nan)) == {FrameFault.NOT_A_NUMBER}


# -- size and age -----------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"width_px": 127}, {"height_px": 97}, {"bit_depth": 16}])
def test_a_size_other_than_the_header_says(wrong: dict[str, int]) -> None:
    assert faults_of(framed(good(), **wrong)) == {FrameFault.WRONG_SIZE}


@pytest.mark.parametrize("info_bar_px", [96, 120])
def test_a_frame_that_is_all_information_bar_has_the_wrong_size(info_bar_px: int) -> None:
    assert faults_of(framed(good(), info_bar_px=info_bar_px)) == {FrameFault.WRONG_SIZE}


@pytest.mark.parametrize(
    ("age_s", "stale"), [(0, False), (5.0, False), (5.001, True), (-4.9, False), (-5.1, True)]
)
def test_age_at_arrival(age_s: float, stale: bool) -> None:
    assert faults_of(framed(good(), age_s=age_s)) == ({FrameFault.STALE} if stale else set())
    assert faults_of(framed(good(), age_s=age_s), max_age_s=10.0) == set()


@pytest.mark.parametrize(
    "options",
    [
        {"max_age_s": 0},
        {"max_black_fraction": 0},
        {"max_white_fraction": 1.1},
        {"max_unwritten_rows": 0},
        {"blank_std_levels": -1},
        {"max_age": 1},
    ],
)
def test_limits_out_of_range_are_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        parse_options(options, SanityOptions, where="sanity")


def test_what_the_driver_found_stands() -> None:
    frame = framed(good())
    header = msgspec.structs.replace(frame.header, faults=(FrameFault.INCOMPLETE,))
    assert faults_of(Frame(header, frame.pixels.copy())) == {FrameFault.INCOMPLETE}
