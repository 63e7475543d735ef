import codecs

import numpy as np
import pytest
import tifffile

from semagent.errors import InputFileError
from semagent_drivers.recorded import load_stack

OME = {"axes": "ZYX", "PhysicalSizeX": 0.01}


def distances_um(stack):
    return [round(entry.working_distance_m * 1e6, 6) for entry in stack.entries]


def refused(path, *parts):
    """Load a stack that is not one, and check that the message says what is needed."""
    with pytest.raises(InputFileError) as caught:
        load_stack(path)
    for part in parts:
        assert part in str(caught.value)


# -- stack.csv --------------------------------------------------------------------------------


def test_a_table_gives_the_frames_in_its_order(five):
    stack = load_stack(five)
    assert distances_um(stack) == [5004, 5000, 5002, 5008, 5006]
    assert [entry.header.path.name for entry in stack.entries] == [f"f{i}.png" for i in range(5)]
    assert stack.working_distance_range_m == (5e-3, 5.008e-3)
    assert not stack.varies_stigmator
    assert load_stack(five / "stack.csv").entries == stack.entries


def test_all_columns_arrive_in_si(table):
    folder = table(
        "working_distance_um,file,pixel_size_nm,stigmator_x,stigmator_y,stage_x_um,stage_y_um,"
        "dwell_ns,beam_energy_kv",
        "5000.5,f0.png,3.25,-0.25,1,1500,-20.5,800,1.5",
        "5001,f1.png,3.25,0.25,-1,1501,-20.5,800,1.5",
    )
    stack = load_stack(folder)
    settings = stack.entries[0].header.metadata
    assert settings.working_distance_m == pytest.approx(5000.5e-6)
    assert settings.pixel_size_m == pytest.approx(3.25e-9)
    assert (stack.entries[0].stigmator_x, stack.entries[0].stigmator_y) == (-0.25, 1)
    assert settings.stage.x_m == pytest.approx(1500e-6)
    assert settings.stage.y_m == pytest.approx(-20.5e-6)
    assert settings.stage.z_m is None
    assert settings.dwell_s == pytest.approx(800e-9)
    assert settings.accelerating_voltage_v == pytest.approx(1500)
    assert stack.varies_stigmator


def test_the_table_comes_before_the_files_metadata_and_leaves_the_rest(tmp_path, vendor_tiff):
    vendor_tiff(tmp_path / "a.tif", 1, 9e-3)
    vendor_tiff(tmp_path / "b.tif", 2, 9e-3)
    (tmp_path / "stack.csv").write_text(
        "file,working_distance_um,pixel_size_nm\na.tif,5000,20\nb.tif,5001,20\n"
    )
    stack = load_stack(tmp_path)
    assert distances_um(stack) == [5000, 5001]
    assert stack.entries[0].header.metadata.pixel_size_m == 20e-9
    assert stack.entries[0].header.metadata.accelerating_voltage_v == 5000


def test_what_spreadsheets_do_to_a_table_is_harmless(table):
    folder = table("file , working_distance_um,stage_x_um", "")
    (folder / "sub").mkdir()
    (folder / "f1.png").rename(folder / "sub" / "f1.png")
    text = (
        "file , working_distance_um,stage_x_um\r\n"
        '"f0.png", 5000 ,\r\n'
        "\r\n"
        ",,\r\n"
        "sub\\f1.png,5001,7\r\n"
    )
    (folder / "stack.csv").write_bytes(codecs.BOM_UTF8 + text.encode())
    stack = load_stack(folder)
    assert distances_um(stack) == [5000, 5001]
    assert stack.entries[0].header.metadata.stage.x_m is None
    assert stack.entries[1].header.metadata.stage.x_m == pytest.approx(7e-6)


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("file", ["column 'working_distance_um' is missing", "pixel_size_nm"]),
        ("working_distance_um", ["column 'file' is missing"]),
        ("file,working_distance_um,wd", ["unknown column 'wd'", "allowed are file,"]),
        ("file,working_distance_um,file", ["column 'file' is there twice"]),
        ("file;working_distance_um", ["separated by semicolons; use commas"]),
        ("file,working_distance_um,stigmator_x", ["stigmator_x and stigmator_y come together"]),
        ("", ["column 'file' is missing"]),
    ],
)
def test_columns_that_are_wrong_are_refused(table, header, parts):
    refused(table(header, "f0.png,5000"), "stack.csv, line 1: ", *parts)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("f1.png", ["has 1 cells for 3 columns"]),
        ("f1.png,5001,10,9", ["has 4 cells for 3 columns"]),
        (",5001,10", ["column 'file' is empty"]),
        ("f1.png,,10", ["column 'working_distance_um' is empty"]),
        ("f1.png,5 mm,10", ["working_distance_um is '5 mm', which is no number"]),
        ("f1.png,nan,10", ["working_distance_um is nan; it has to be from -200000 to 200000"]),
        ("f1.png,inf,10", ["working_distance_um is inf; it has to be from -200000 to 200000"]),
        ("f1.png,5000000,10", ["working_distance_um is 5000000; it has to be from -200000"]),
        ("f1.png,5001,0", ["pixel_size_nm is 0; it has to be above 0 and finite"]),
        ("f1.png,5001,-3", ["pixel_size_nm is -3; it has to be above 0"]),
        ("f1.png,5001,inf", ["pixel_size_nm is inf"]),
        ("absent.png,5001,10", ["absent.png: no such file"]),
        ("f0.png,5001,10", ["f0.png is already on line 2"]),
        ("./f0.png,5001,10", ["f0.png is already on line 2"]),
    ],
)
def test_rows_that_are_wrong_are_refused_with_their_line(table, row, parts):
    folder = table("file,working_distance_um,pixel_size_nm", "f0.png,5000,10", row)
    refused(folder, "stack.csv, line 3: ", *parts)


def test_a_field_that_follows_the_focus_makes_no_other_stack(table):
    header = "file,working_distance_um,pixel_size_nm"
    stack = load_stack(table(header, "f0.png,5000,10", "f1.png,5100,10.25"))
    assert distances_um(stack) == [5000, 5100]


@pytest.mark.parametrize(
    "rows", [("f0.png,5000,10", "f1.png,5001,10.2"), ("f0.png,1,10", "f1.png,9,15")]
)
def test_another_magnification_makes_another_stack(table, rows):
    folder = table("file,working_distance_um,pixel_size_nm", *rows)
    refused(folder, "f1.png", "pixel size is")


def test_distances_may_count_from_anywhere_up_to_what_a_microscope_has(table):
    folder = table("file,working_distance_um", "f0.png,-200000", "f1.png,0", "f2.png,200000")
    assert distances_um(load_stack(folder)) == [-200000, 0, 200000]


def test_a_file_that_says_more_than_a_microscope_has_is_named(tmp_path, vendor_tiff):
    vendor_tiff(tmp_path / "a.tif", 10, 0.005)
    vendor_tiff(tmp_path / "b.tif", 10, 5.0)
    refused(tmp_path, "b.tif: its working distance is 5000 mm; it has to be from -200 to 200 mm")


@pytest.mark.parametrize(("value", "allowed"), [("-1", True), ("1", True), ("1.01", False)])
def test_stigmators_are_fractions(table, value, allowed):
    folder = table(
        "file,working_distance_um,stigmator_x,stigmator_y",
        f"f0.png,5000,{value},0",
        "f1.png,5001,0,0",
    )
    if allowed:
        assert load_stack(folder).entries[0].stigmator_x == float(value)
    else:
        refused(folder, "line 2: stigmator_x is 1.01; it has to be from -1 to 1")


def test_a_table_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "stack.csv").write_bytes(b"file,working_distance_um\n\xff\xfe\x00,1\n")
    refused(tmp_path, "stack.csv: is not UTF-8 text")
    (tmp_path / "stack.csv").write_text('file,working_distance_um\n"f0.png,1\n')
    refused(tmp_path, "stack.csv: is no table of comma-separated values")


# -- images that know where they were taken ---------------------------------------------------


def test_a_folder_of_vendor_images_needs_no_table(tmp_path, vendor_tiff):
    for index, distance_m in enumerate((5.02e-3, 5.0e-3, 5.01e-3)):
        vendor_tiff(tmp_path / f"s{index}.tif", index, distance_m)
    (tmp_path / "notes.txt").write_text("not an image")
    assert distances_um(load_stack(tmp_path)) == [5020, 5000, 5010]


@pytest.mark.parametrize("absolute", [True, False])
def test_a_glob_picks_some(tmp_path, vendor_tiff, monkeypatch, absolute):
    for name in ("a1.tif", "a2.tif", "b1.tif"):
        vendor_tiff(tmp_path / name, 1, 5e-3 + int(name[1]) * 1e-6)
    monkeypatch.chdir(tmp_path)
    stack = load_stack(tmp_path / "a*.tif" if absolute else "a*.tif")
    assert [entry.header.path.name for entry in stack.entries] == ["a1.tif", "a2.tif"]


def test_an_existing_path_with_brackets_is_no_glob(tmp_path, vendor_tiff):
    folder = tmp_path / "run [3]"
    folder.mkdir()
    for index in range(2):
        vendor_tiff(folder / f"{index}.tif", 1, 5e-3 + index * 1e-6)
    assert len(load_stack(folder).entries) == 2


def test_an_image_without_working_distance_is_refused(tmp_path, vendor_tiff):
    vendor_tiff(tmp_path / "a.tif", 1, 5e-3)
    vendor_tiff(tmp_path / "b.tif", 1, None)
    refused(tmp_path, "b.tif: its metadata give no working distance", "stack.csv")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"shape": (24, 40)}, ["size in pixels is 40 × 24, but 32 × 24 in "]),
        ({"dtype": np.uint16}, ["bit depth is 16, but 8"]),
        ({"pixel_m": 1.02e-8}, ["pixel size is 10.2 nm, but 10 nm in "]),
        ({"pixel_m": 0}, ["pixel size is not known, but 10 nm in "]),
        ({"voltage_v": 15000}, ["accelerating voltage is 15 kV, but 5 kV in "]),
        (
            {"stigmator": {"X": 0.1, "Y": 0}},
            ["setting of the stigmators is known, but not known in "],
        ),
    ],
)
def test_a_mixture_is_refused(tmp_path, vendor_tiff, change, parts):
    vendor_tiff(tmp_path / "a.tif", 1, 5e-3)
    vendor_tiff(tmp_path / "b.tif", 1, 5.001e-3)
    vendor_tiff(tmp_path / "c.tif", 1, 5.002e-3, **change)
    refused(tmp_path, "c.tif: ", "a.tif", *parts)


def test_a_pixel_size_that_is_rounded_is_no_mixture(tmp_path, vendor_tiff):
    vendor_tiff(tmp_path / "a.tif", 1, 5e-3)
    vendor_tiff(tmp_path / "b.tif", 1, 5.001e-3, pixel_m=1.005e-8)
    assert len(load_stack(tmp_path).entries) == 2


def test_too_few_frames_are_refused(tmp_path, vendor_tiff):
    refused(tmp_path, str(tmp_path), "holds neither stack.csv nor images")
    vendor_tiff(tmp_path / "a.tif", 1, 5e-3)
    refused(tmp_path, "holds 1 frame; a focus stack has two or more")
    vendor_tiff(tmp_path / "b.tif", 1, 5e-3)
    refused(tmp_path, "all 2 frames have the working distance 5.0000 mm", "stack.csv")


def test_a_header_line_alone_is_refused(table):
    refused(table("file,working_distance_um"), "holds 0 frame")


def test_a_path_to_nothing_is_refused(tmp_path):
    refused(tmp_path / "absent", "absent: no such file or folder", "OME-TIFF")
    refused(tmp_path / "*.tif", "*.tif: matches no image")


@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_a_frame_that_is_cut_short_is_found_at_once(tmp_path, vendor_tiff, png, ending, kept):
    names = [f"f{index}{ending}" for index in range(3)]
    for name in names:
        vendor_tiff(tmp_path / name, 1, 5e-3) if ending == ".tif" else png(tmp_path / name, 7)
    lines = [f"{name},{5000 + index}" for index, name in enumerate(names)]
    (tmp_path / "stack.csv").write_text("\n".join(["file,working_distance_um", *lines]))
    damaged = tmp_path / names[1]
    damaged.write_bytes(damaged.read_bytes()[: int(damaged.stat().st_size * kept)])
    refused(tmp_path, names[1], "cut short")


# -- OME-TIFF ---------------------------------------------------------------------------------


def write_ome(path, count=4, **metadata):
    data = np.stack([np.full((24, 32), 10 * (z + 1), np.uint8) for z in range(count)])
    tifffile.imwrite(path, data, ome=True, metadata=OME | metadata)
    return path


def positions(*values):
    return {"Plane": {"PositionZ": list(values), "PositionZUnit": ["µm"] * len(values)}}


@pytest.mark.parametrize("alone_in_folder", [True, False])
def test_an_ome_tiff_is_a_stack(tmp_path, alone_in_folder):
    path = write_ome(tmp_path / "s.ome.tif", **positions(5000.0, 5002.0, 5004.0, 5001.0))
    stack = load_stack(tmp_path if alone_in_folder else path)
    assert distances_um(stack) == [5000, 5002, 5004, 5001]
    assert [entry.source for entry in stack.entries] == [
        str(path),
        *(f"{path}#page={page}" for page in (1, 2, 3)),
    ]


def test_an_ome_tiff_with_steps_only_counts_from_zero(tmp_path):
    path = write_ome(tmp_path / "s.ome.tif", PhysicalSizeZ=2.0)
    assert distances_um(load_stack(path)) == [0, 2, 4, 6]


def test_an_ome_tiff_beside_other_images_is_refused(tmp_path, vendor_tiff):
    write_ome(tmp_path / "s.ome.tif", PhysicalSizeZ=2.0)
    vendor_tiff(tmp_path / "a.tif", 1, 5e-3)
    refused(tmp_path, "s.ome.tif: holds 4 planes beside other images; give it alone")
    (tmp_path / "stack.csv").write_text("file,working_distance_um\ns.ome.tif,1\na.tif,2\n")
    refused(tmp_path, "s.ome.tif: holds 4 planes; a row of stack.csv names one image")


def test_a_tiff_that_is_no_stack_is_refused(tmp_path, vendor_tiff):
    refused(write_ome(tmp_path / "s.ome.tif"), "s.ome.tif: its metadata give no working distance")
    refused(vendor_tiff(tmp_path / "a.tif", 1, 5e-3), "a.tif: holds 1 frame")


def test_an_ome_tiff_cut_short_is_refused(tmp_path):
    path = write_ome(tmp_path / "s.ome.tif", PhysicalSizeZ=2.0)
    for kept in (0.4, 0.7, 0.9, 0.99):
        cut = tmp_path / "cut" / "s.ome.tif"
        cut.parent.mkdir(exist_ok=True)
        cut.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
        refused(cut, str(cut))


# -- real micrographs -------------------------------------------------------------------------


def test_real_micrographs_of_one_field_but_other_settings_are_refused(shared_data):
    refused(shared_data / "test" / "sem2surface-fei34682-16bit", "P33_scale1_detectorA.tif")


def test_real_micrographs_by_glob(shared_data):
    stack = load_stack(shared_data / "test" / "gift-fei34682" / "*.tif")
    assert distances_um(stack) == [10477.1, 10433.6, 10218.6]
