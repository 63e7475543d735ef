"""Vendor settings from the files that lie beside an image."""

import pytest

from semagent.images import read_image
from semagent.types import StagePosition

JEOL = (
    "$CM_FORMAT JEOL/SEM\n$CM_INSTRUMENT JSM-7800F\n$CM_SIGNAL SEI\n$CM_MAG 5000\n"
    "$CM_ACCEL_VOLT 15.00\n$CM_FULL_SIZE 64 40\n$CM_STAGE_POS 2.044 0.704 10.2 11.0 0.0 0\n"
    "$$SM_MICRON_BAR 50\n$$SM_MICRON_MARKER 5um\n$$SM_WD 10.1\n"
)


@pytest.mark.parametrize("ending", [".txt", ".TXT"])
def test_jeol_sidecar(write, ending):
    path = write([])
    path.with_suffix(ending).write_text(JEOL)
    settings = read_image(path).metadata
    assert settings.vendor == "JEOL"
    assert settings.instrument == "JSM-7800F"
    assert settings.working_distance_m == 10.1e-3
    assert settings.pixel_size_m == pytest.approx(100e-9)
    assert settings.accelerating_voltage_v == 15000
    assert settings.stage == StagePosition(x_m=2.044e-3, y_m=0.704e-3, z_m=10.2e-3)
    assert settings.magnification == 5000
    assert settings.detector == "SEI"
    assert settings.info_bar_px == 8


HITACHI = (
    "[SemImageFile]\r\nInstructName=SU8230\r\nSampleName=Probe ä\r\nDataSize=64x48\r\n"
    "PixelSize=9.921875\r\nSignalName=SE(U)\r\nAcceleratingVoltage=15000 Volt\r\n"
    "Magnification=10000\r\nWorkingDistance=8100 um\r\nStagePositionX=37250000\r\n"
)


@pytest.mark.parametrize(
    "data",
    [
        HITACHI.encode("utf-8"),
        HITACHI.encode("utf-8-sig"),
        HITACHI.encode("cp1252"),
        HITACHI.encode("utf-16"),
        b"\xfe\xff" + HITACHI.encode("utf-16-be"),
        HITACHI.encode("utf-16-le"),
        HITACHI.encode("utf-16-be"),
    ],
    ids=["utf-8", "utf-8-sig", "cp1252", "utf-16-mark", "utf-16-be-mark", "utf-16", "utf-16-be"],
)
def test_hitachi_sidecar_in_every_encoding(write, data):
    path = write([])
    path.with_suffix(".txt").write_bytes(data)
    settings = read_image(path).metadata
    assert settings.vendor == "Hitachi"
    assert settings.instrument == "SU8230"
    assert settings.working_distance_m == 8.1e-3
    assert settings.pixel_size_m == 9.921875e-9
    assert settings.accelerating_voltage_v == 15000
    assert settings.stage.x_m == 37.25e-3
    assert settings.magnification == 10000
    assert settings.detector == "SE(U)"
    assert settings.info_bar_px is None  # a bar over the scan does not change the height


def test_hitachi_older_models_print_the_condition_only(write):
    path = write([])
    path.with_suffix(".txt").write_text(
        "[SemImageFile]\nInstructName=S-4700\nCondition=Vacc=10kV   Mag=x15.0k   WD=8.1mm\n"
    )
    settings = read_image(path).metadata
    assert settings.working_distance_m == 8.1e-3
    assert settings.accelerating_voltage_v == 10000


def test_hitachi_working_distance_without_unit_is_in_micrometres(write):
    path = write([])
    path.with_suffix(".txt").write_text("[SemImageFile]\nWorkingDistance=8123\n")
    assert read_image(path).metadata.working_distance_m == 8.123e-3


def test_notes_beside_the_image_are_no_settings(write):
    path = write([])
    path.with_suffix(".txt").write_text("WD was 5 mm, I think")
    assert read_image(path).metadata.vendor is None


def test_a_huge_text_beside_the_image_is_not_read(write):
    path = write([])
    path.with_suffix(".txt").write_text(JEOL + "x" * (1 << 20))
    assert read_image(path).metadata.vendor is None


def test_tescan_header_beside_the_image(write):
    path = write([], "scan.tif")
    path.with_name("scan-tif.hdr").write_text("[MAIN]\nImageStripSize=8\n[SEM]\nWD=0.0100123\n")
    assert read_image(path).metadata.working_distance_m == 0.0100123
