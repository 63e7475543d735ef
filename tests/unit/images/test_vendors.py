"""Vendor settings from files written here with the vendors' tags."""

import math
import struct

import pytest

from semagent.images import read_headers, read_image
from semagent.types import StagePosition

_BYTE, _ASCII = 1, 2

ZEISS = {
    "DP_ZONE": "Zone = 1",
    "AP_WD": "WD = 4.6 mm",
    "AP_WIDTH": "Width = 20.00 µm",
    "AP_PIXEL_SIZE": "Pixel Size = 19.53 nm",
    "AP_IMAGE_PIXEL_SIZE": "Image Pixel Size = 312.5 nm",
    "AP_MAG": "Mag = 5.72 K X",
    "AP_ACTUALKV": "EHT = 5.00 kV",
    "AP_IPROBE": "I Probe = 181 pA",
    "AP_STIG_X": "Stigmation X = 4.0 %",
    "AP_STIG_Y": "Stigmation Y = -7.9 %",
    "AP_STAGE_AT_X": "Stage at X = 63.9686 mm",
    "AP_STAGE_AT_T": "Stage at T = 90.0 °",
    "DP_DETECTOR_CHANNEL": "Signal A = SE2",
    "DP_DWELL_TIME": "Dwell Time = 100 ns",
    "DP_SCANRATE": "Scan Speed = 9",
    "AP_LINE_TIME": "Line Time = 1.7 ms",
    "DP_NOISE_REDUCTION": "Noise Reduction = Pixel Avg.",
    "AP_LINE_AVERAGE_COUNT": "Line Avg.Count = 5",
    "AP_FRAME_AVERAGE_COUNT": "Frames to average = 15",
    "SV_SERIAL_NUMBER": "Serial No. = Auriga-39-07",
}


def zeiss_tag(entries=ZEISS, working_distance_m=4.590597e-3):
    zones = [
        f"{zone} 1.95e-008 5.7e+003 6 5.0e+003 2.3e+000 2.0e-007 {distance:.9e}".split()
        for zone, distance in enumerate([1e-3, working_distance_m, 3e-3, 4e-3])
    ]
    unnamed = ["0", "0", *(number for zone in zones for number in zone)]
    named = [line for key, value in entries.items() for line in (key, value)]
    return "\r\n".join([*unnamed, *named]).encode("cp1252")


@pytest.fixture
def zeiss(write):
    def read(working_distance_m=4.590597e-3, **changes):
        entries = {key: value for key, value in (ZEISS | changes).items() if value is not None}
        tag = zeiss_tag(entries, working_distance_m)
        return read_image(write([(34118, _BYTE, tag)])).metadata

    return read


def test_zeiss_settings(zeiss):
    settings = zeiss()
    assert settings.vendor == "ZEISS"
    assert settings.instrument == "Auriga-39-07"
    assert settings.working_distance_m == 4.590597e-3
    assert settings.pixel_size_m == 312.5e-9
    assert settings.magnification == 5720
    assert settings.accelerating_voltage_v == 5000
    assert settings.beam_current_a == 181e-12
    assert (settings.stigmator_x, settings.stigmator_y) == (0.04, -0.079)
    assert settings.stage.x_m == 63.9686e-3
    assert settings.stage.tilt_rad == pytest.approx(math.pi / 2)
    assert settings.detector == "SE2"
    assert settings.dwell_s == 25.6e-6
    assert settings.frame_averages == 1
    assert settings.info_bar_px is None


def test_zeiss_working_distance_is_exact_only_if_the_unnamed_numbers_agree(zeiss):
    assert zeiss(working_distance_m=4.641e-3).working_distance_m == 4.641e-3
    assert zeiss(working_distance_m=9e-3).working_distance_m == 4.6e-3
    assert zeiss(DP_ZONE="Zone = 7").working_distance_m == 4.6e-3
    assert zeiss(AP_WD=None).working_distance_m is None
    assert zeiss(AP_WD="WD = 4,6 mm").working_distance_m == 4.590597e-3


def test_zeiss_pixel_size_is_that_of_the_stored_image(zeiss):
    without = zeiss(AP_IMAGE_PIXEL_SIZE=None)
    assert without.pixel_size_m == pytest.approx(20e-6 / 64)
    assert zeiss(AP_IMAGE_PIXEL_SIZE=None, AP_WIDTH=None).pixel_size_m is None


@pytest.mark.parametrize(
    ("mode", "line_time", "averages", "dwell_s"),
    [
        ("Pixel Avg.", "1.7 ms", 1, 25.6e-6),
        ("Line Avg", "8.5 ms", 5, 25.6e-6),
        ("Drift Comp. Frame Avg.", "1.7 ms", 15, 25.6e-6),
        ("Something new", "1.7 ms", None, 25.6e-6),
        ("Pixel Avg.", "1.6 ms", 1, None),  # shorter than its pixels
        ("Pixel Avg.", "3.0 ms", 1, None),  # a line cannot lose that much to fly-back
    ],
)
def test_zeiss_dwell_and_averages(zeiss, mode, line_time, averages, dwell_s):
    settings = zeiss(
        DP_NOISE_REDUCTION=f"Noise Reduction = {mode}", AP_LINE_TIME=f"Line Time = {line_time}"
    )
    assert settings.frame_averages == averages
    assert settings.dwell_s == dwell_s


def test_zeiss_placeholder_for_the_probe_current_is_no_current(zeiss):
    assert zeiss(AP_IPROBE="I Probe = 200.0 nA").beam_current_a is None
    assert zeiss(AP_IPROBE="I Probe = 0 pA").beam_current_a is None


THERMO = """[System]
SystemType=Helios 5 UX

[Beam]
HV=5000
StigmatorX=-0.0130203
StigmatorY=0.33132
Beam={beam}

[EBeam]
WD=0.00409547
BeamCurrent=8.6e-011

[IBeam]
WD=0.0195
BeamCurrent=

[Scan]
PixelWidth=4.0e-008
PixelHeight=4.0e-008
HorFieldsize=2.56e-006
Dwelltime=3e-006

[Stage]
StageX=0.0113813
StageY=-0.0104484
StageZ=0.00398338
StageR=-2.10548
StageT=0.90756
WorkingDistance=0.0041

[Image]
ResolutionX=64
ResolutionY={rows}
Average={average}
Integrate={integrate}
MagCanvasRealWidth=0.128

[Detectors]
Name=TLD

[PrivateFei]
DatabarHeight=8
{more}
"""


@pytest.fixture
def thermo(write):
    def read(code=34682, *, beam="EBeam", rows=40, average=0, integrate=1, more=""):
        tag = THERMO.format(
            beam=beam, rows=rows, average=average, integrate=integrate, more=more
        ).encode("latin-1")
        return read_image(write([(code, _ASCII, tag)])).metadata

    return read


@pytest.mark.parametrize("code", [34682, 34680])
def test_thermo_settings(thermo, code):
    settings = thermo(code)
    assert settings.vendor == "Thermo Fisher"
    assert settings.instrument == "Helios 5 UX"
    assert settings.working_distance_m == 0.00409547
    assert settings.pixel_size_m == settings.pixel_height_m == 40e-9
    assert settings.dwell_s == 3e-6
    assert settings.frame_averages == 1
    assert settings.accelerating_voltage_v == 5000
    assert settings.beam_current_a == 86e-12
    assert (settings.stigmator_x, settings.stigmator_y) == (-0.0130203, 0.33132)
    assert settings.stage == StagePosition(
        x_m=0.0113813, y_m=-0.0104484, z_m=0.00398338, rotation_rad=-2.10548, tilt_rad=0.90756
    )
    assert settings.magnification == pytest.approx(50_000)
    assert settings.detector == "TLD"
    assert settings.info_bar_px == 8


def test_thermo_follows_the_beam_that_took_the_image(thermo):
    assert thermo(beam="IBeam").working_distance_m == 0.0195
    assert thermo(beam="IBeam").beam_current_a is None
    assert thermo(beam="NewBeam").working_distance_m == 0.0041  # from [Stage]


def test_thermo_bar_counts_only_if_it_was_saved(thermo):
    assert thermo(rows=48).info_bar_px == 0
    assert thermo(rows=1024).info_bar_px is None  # the image was scaled
    assert thermo(rows="").info_bar_px is None


@pytest.mark.parametrize(
    ("average", "integrate", "expected"), [(0, 0, 1), (0, 8, 8), (16, 1, 16), ("", "", None)]
)
def test_thermo_counts_scans(thermo, average, integrate, expected):
    assert thermo(average=average, integrate=integrate).frame_averages == expected


def test_thermo_landing_energy_counts_where_the_beam_is_slowed_down(thermo):
    assert thermo(more="[EBeamDeceleration]\nLandingEnergy=1000").accelerating_voltage_v == 1000
    assert thermo(more="[EBeamDeceleration]\nLandingEnergy=").accelerating_voltage_v == 5000


def test_fei_xl_settings(write):
    tag = (
        "[Vector]\nFWD=4.878\nMagnification=25000\nHighTension=5000.0\nStigmatorX=7.1\n"
        "[ImageDevice]\nSizeY=235.0\nRatioXY=1.333\n"
    )
    path = write([(34680, _ASCII, tag.encode())])
    image = read_image(path)
    settings = image.metadata
    assert settings.vendor == "FEI"
    assert settings.working_distance_m == 4.878e-3
    assert settings.accelerating_voltage_v == 5000
    assert settings.pixel_size_m == pytest.approx(0.235 * 1.333 / 25000 / 64)
    assert settings.pixel_height_m == pytest.approx(0.235 / 25000 / 48)
    assert settings.stigmator_x is None
    (square,) = read_headers(write([(34680, _ASCII, b"[Vector]\nFWD=4.878\n")], "other.tif"))
    assert square.metadata.pixel_size_m is None
    assert image.notes == ()


def test_pixels_that_are_not_square_are_noted(write):
    tag = "[Vector]\nMagnification=25000\n[ImageDevice]\nSizeY=235.0\nRatioXY=1.5\n"
    assert read_image(write([(34680, _ASCII, tag.encode())])).notes == (
        "pixels are not square: height is 0.889 times width",
    )


TESCAN_MAIN = (
    "AccFrames=4\r\nDevice=MIRA3 LMH\r\nImageStripSize=8\r\nMagnification=5000.0\r\n"
    "PixelSizeX=41e-009\r\nPixelSizeY=41e-009\r\n"
)
TESCAN_SEM = (
    "Detector=SE\r\nDwellTime=3.2e-6\r\nHV=15000.0\r\nPredictedBeamCurrent=1.5e-10\r\n"
    "StageX=0.0123\r\nStageRotation=180\r\nStageTilt=0\r\nStigmatorX=0.4\r\nWD=0.0100123\r\n"
)


def tescan_blocks(*blocks):
    return b"".join(
        struct.pack("<IH", len(data) + 2, kind) + data
        for kind, data in [(1, b"\xff\xd8 thumbnail [SEM]\nWD=9 \xff\xd9"), *blocks, (0, b"")]
    )


@pytest.mark.parametrize(
    "tag",
    [
        tescan_blocks(
            (2, TESCAN_MAIN.encode()), (3, TESCAN_SEM.encode()), (5, b"WD=0.007\r\nHV=30000\r\n")
        ),
        f"[MAIN]\r\n{TESCAN_MAIN}[SEM]\r\n{TESCAN_SEM}[FIB]\r\nWD=0.007\r\n".encode(),
    ],
    ids=["blocks", "sections"],
)
def test_tescan_settings(write, tag):
    settings = read_image(write([(50431, _BYTE, tag)])).metadata
    assert settings.vendor == "TESCAN"
    assert settings.instrument == "MIRA3 LMH"
    assert settings.working_distance_m == 0.0100123
    assert settings.pixel_size_m == 41e-9
    assert settings.dwell_s == 3.2e-6
    assert settings.frame_averages == 4
    assert settings.accelerating_voltage_v == 15000
    assert settings.beam_current_a == 150e-12
    assert settings.stage.x_m == 0.0123
    assert settings.stage.rotation_rad == pytest.approx(math.pi)
    assert settings.stigmator_x is None
    assert settings.magnification == 5000
    assert settings.detector == "SE"
    assert settings.info_bar_px == 8


def test_tescan_tag_of_something_else_is_ignored(write):
    assert read_image(write([(50431, _BYTE, b"\0\1\2 not a header")])).metadata.vendor is None


def fibics(focus="", items="", namespace="Fibics"):
    return (
        f'<?xml version="1.0"?><{namespace} version="1.0">'
        "<Image><Width>64</Width><Height>48</Height><Machine>Merlin-1</Machine>"
        "<Detector>InLens</Detector></Image>"
        f'<Scan><Dwell units="ns">800</Dwell><LineAvg>2</LineAvg><FOV_X units="um">12.8</FOV_X>'
        f"{focus}<StigX>3</StigX></Scan>"
        '<Stage><X units="um">1500.5</X><Y units="um">-20</Y><Rot units="degree">180</Rot></Stage>'
        f'<BeamInfo><item name="AccV">1500.0</item><item name="BeamI">250</item>{items}</BeamInfo>'
        f"</{namespace}>"
    )


@pytest.mark.parametrize(
    ("focus", "items", "working_distance_m"),
    [
        ('<Focus units="mm">5.1203</Focus>', "", 5.1203e-3),
        ("", '<item name="WD">=5.1203 mm</item>', 5.1203e-3),
        ('<Focus units="um">9</Focus>', '<item name="WD">5.1203 mm</item>', 5.1203e-3),
        ("<Focus>5.1203</Focus>", "", None),  # a unit nobody can know
        ("", "", None),
    ],
)
def test_fibics_settings(write, focus, items, working_distance_m):
    path = write([(51023, _ASCII, fibics(focus, items).encode())])
    settings = read_image(path).metadata
    assert settings.vendor == "Fibics"
    assert settings.instrument == "Merlin-1"
    assert settings.working_distance_m == working_distance_m
    assert settings.pixel_size_m == pytest.approx(0.2e-6)
    assert settings.dwell_s == 800e-9
    assert settings.frame_averages == 2
    assert settings.accelerating_voltage_v == 1500
    assert settings.beam_current_a == 250e-12
    assert settings.stage.x_m == 1500.5e-6
    assert settings.stage.rotation_rad == pytest.approx(math.pi)
    assert settings.stigmator_x is None
    assert settings.detector == "InLens"


@pytest.mark.parametrize("xml", ["<Fibics><Image>", "<Other/>", fibics(namespace="Else"), ""])
def test_fibics_tag_of_something_else_is_ignored(write, xml):
    assert read_image(write([(51023, _ASCII, xml.encode() + b"\0")])).metadata.vendor is None


def test_the_microscopes_own_tag_comes_first_and_others_fill_in(write):
    path = write(
        [
            (34118, _BYTE, zeiss_tag({"AP_WD": "WD = 4.6 mm", "DP_ZONE": "Zone = 1"})),
            (51023, _ASCII, fibics('<Focus units="mm">9</Focus>').encode()),
        ]
    )
    settings = read_image(path).metadata
    assert settings.vendor == "ZEISS"
    assert settings.working_distance_m == 4.590597e-3
    assert settings.detector == "InLens"
    assert settings.stage.y_m == -20e-6
