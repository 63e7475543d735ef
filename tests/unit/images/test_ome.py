import numpy as np
import pytest
import tifffile

from semagent.errors import InputFileError
from semagent.images import read_detectors, read_headers, read_image

STACK = np.stack([np.full((24, 32), level, np.uint8) for level in (10, 20, 30, 40)])


def write_ome(path, data=STACK, axes="ZYX", **metadata):
    tifffile.imwrite(path, data, ome=True, metadata={"axes": axes, **metadata})
    return path


def planes(positions, unit="µm"):
    units = {"PositionZUnit": [unit] * len(positions)} if unit else {}
    return {"Plane": {"PositionZ": positions, **units}}


def distances_m(path):
    return [header.metadata.working_distance_m for header in read_headers(path)]


@pytest.mark.parametrize(
    ("unit", "positions"),
    [("µm", [5000.0, 5010.0, 5020.0, 4990.0]), ("mm", [5.0, 5.01, 5.02, 4.99])],
)
def test_position_z_is_the_working_distance(tmp_path, unit, positions):
    path = write_ome(tmp_path / "s.ome.tif", PhysicalSizeX=0.02, **planes(positions, unit))
    assert distances_m(path) == pytest.approx([5e-3, 5.01e-3, 5.02e-3, 4.99e-3])
    assert [header.page for header in read_headers(path)] == [0, 1, 2, 3]
    image = read_image(path, page=2)
    assert np.all(image.pixels == 30)
    assert image.metadata.working_distance_m == 5.02e-3
    assert image.metadata.pixel_size_m == 20e-9
    assert image.notes == ()


def test_without_positions_the_step_counts_from_zero(tmp_path):
    path = write_ome(tmp_path / "s.ome.tif", PhysicalSizeZ=2.5)
    assert distances_m(path) == pytest.approx([0, 2.5e-6, 5e-6, 7.5e-6])
    path = write_ome(tmp_path / "n.ome.tif", PhysicalSizeZ=250, PhysicalSizeZUnit="nm")
    assert distances_m(path) == pytest.approx([0, 0.25e-6, 0.5e-6, 0.75e-6])


def test_neither_positions_nor_step_is_no_working_distance(tmp_path):
    assert distances_m(write_ome(tmp_path / "s.ome.tif")) == [None] * 4


@pytest.mark.parametrize("positions", [planes([1.0, 2.0, 3.0, 4.0], unit=None)])
def test_positions_without_a_unit_are_refused(tmp_path, positions):
    path = write_ome(tmp_path / "s.ome.tif", **positions)
    with pytest.raises(InputFileError, match=r"s\.ome\.tif: gives no PositionZ with a Position"):
        read_headers(path)


@pytest.mark.parametrize(
    ("axes", "shape", "reason"),
    [
        ("CYX", (3, 24, 32), "has 3 channels and 1 times"),
        ("TYX", (3, 24, 32), "has 1 channels and 3 times"),
        ("ZCYX", (4, 2, 24, 32), "has 2 channels and 1 times"),
    ],
)
def test_other_dimensions_are_refused(tmp_path, axes, shape, reason):
    path = write_ome(tmp_path / "s.ome.tif", np.zeros(shape, np.uint8), axes)
    with pytest.raises(InputFileError, match=reason):
        read_headers(path)


def test_several_images_are_refused(tmp_path):
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(STACK, metadata={"axes": "ZYX"})
        tif.write(STACK, metadata={"axes": "ZYX"})
    with pytest.raises(InputFileError, match=r"two\.ome\.tif: holds 2 images"):
        read_headers(path)


def test_colour_planes_are_read_as_grey(tmp_path):
    colours = np.zeros((3, 24, 32, 3), np.uint8)
    colours[..., 1] = 100
    path = tmp_path / "s.ome.tif"
    tifffile.imwrite(
        path,
        colours,
        ome=True,
        photometric="rgb",
        metadata={"axes": "ZYXS", **planes([1.0, 2.0, 3.0])},
    )
    assert distances_m(path) == pytest.approx([1e-6, 2e-6, 3e-6])
    assert read_image(path, page=1).notes == ("colours converted to grey",)


XML = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="32" '
    'SizeY="24" SizeZ="4" SizeC="1" SizeT="1">{data}{planes}</Pixels></Image></OME>'
)


def write_by_hand(path, data="<TiffData/>", positions=(4.0, 4.1, 4.2, 4.3), pages=4):
    """Metadata in the first page, as other programs than tifffile write them."""
    described = "".join(
        f'<Plane TheZ="{z}" TheC="0" TheT="0" PositionZ="{position}" PositionZUnit="mm"/>'
        for z, position in enumerate(positions)
    )
    with tifffile.TiffWriter(path) as tif:
        for page in range(pages):
            text = XML.format(data=data, planes=described) if page == 0 else None
            tif.write(STACK[page], description=text, metadata=None, contiguous=False)
    return path


def test_other_writers_files_are_read(tmp_path):
    path = write_by_hand(tmp_path / "s.ome.tif")
    assert distances_m(path) == [4.0e-3, 4.1e-3, 4.2e-3, 4.3e-3]


def test_pages_in_another_order_than_z_are_followed(tmp_path):
    order = "".join(
        f'<TiffData FirstZ="{z}" FirstC="0" FirstT="0" IFD="{3 - z}" PlaneCount="1"/>'
        for z in range(4)
    )
    headers = read_headers(write_by_hand(tmp_path / "s.ome.tif", data=order))
    assert [header.page for header in headers] == [3, 2, 1, 0]
    assert headers[0].metadata.working_distance_m == 4.0e-3


def test_missing_planes_are_refused(tmp_path):
    path = write_by_hand(tmp_path / "s.ome.tif", pages=3)
    with pytest.raises(InputFileError, match=r"s\.ome\.tif: holds 3 of the 4 planes"):
        read_headers(path)


def test_a_plane_without_position_among_others_is_refused(tmp_path):
    path = write_by_hand(tmp_path / "s.ome.tif", positions=(4.0, 4.1, 4.2))
    with pytest.raises(InputFileError, match=r"s\.ome\.tif: gives no PositionZ .* plane 3"):
        read_headers(path)


def test_a_plane_that_is_cut_off_is_found_without_decoding(tmp_path):
    path = write_by_hand(tmp_path / "s.ome.tif")
    with tifffile.TiffFile(path) as tif:
        last = tif.pages[3].dataoffsets[0]
    path.write_bytes(path.read_bytes()[: last + 10])
    with pytest.raises(InputFileError, match=r"s\.ome\.tif: "):
        read_headers(path)


def test_a_single_frame_has_its_own_working_distance(tmp_path):
    path = write_ome(tmp_path / "f.ome.tif", STACK[0], "YX", **planes([4250.0]))
    assert read_image(path).metadata.working_distance_m == 4.25e-3


def scan_of(path, channels=("SE", "BSE", "µ In-lens"), data=STACK[:3], axes="CYX", **metadata):
    names = {"Channel": {"Name": list(channels)}} if channels else {}
    tifffile.imwrite(
        path,
        data,
        ome=True,
        photometric="minisblack",
        metadata={"axes": axes, **names, **metadata},
    )
    return path


def test_channels_are_the_detectors_of_one_scan(tmp_path):
    data = STACK[:3].astype(np.uint16) * 257
    images = read_detectors(scan_of(tmp_path / "s.ome.tif", data=data, PhysicalSizeX=0.02))
    assert [image.metadata.detector for image in images] == ["SE", "BSE", "µ In-lens"]
    assert [image.metadata.pixel_size_m for image in images] == [20e-9] * 3
    for image, plane in zip(images, data, strict=True):
        assert image.pixels.dtype == np.uint16
        assert np.array_equal(image.pixels, plane)
        assert image.notes == ()


def test_channels_without_names_are_numbered(tmp_path):
    images = read_detectors(scan_of(tmp_path / "s.ome.tif", channels=None))
    detectors = [image.metadata.detector for image in images]
    assert detectors == ["channel 1", "channel 2", "channel 3"]


def test_a_file_of_one_detector_is_read_as_ever(tmp_path):
    path = write_ome(tmp_path / "f.ome.tif", STACK[0], "YX", **planes([4250.0]))
    (image,) = read_detectors(path)
    assert image.metadata == read_image(path).metadata
    png = tmp_path / "f.tif"
    tifffile.imwrite(png, STACK[0])
    assert len(read_detectors(png)) == 1


@pytest.mark.parametrize(
    ("axes", "shape"), [("ZCYX", (4, 2, 24, 32)), ("TCYX", (4, 2, 24, 32))], ids=["planes", "times"]
)
def test_several_scans_in_channels_are_refused(tmp_path, axes, shape):
    path = scan_of(tmp_path / "s.ome.tif", None, np.zeros(shape, np.uint8), axes)
    with pytest.raises(
        InputFileError, match=r"s\.ome\.tif: has 2 channels of \d planes and \d times"
    ):
        read_detectors(path)


def test_a_scan_that_lacks_a_detector_is_refused(tmp_path):
    path = tmp_path / "s.ome.tif"
    text = XML.replace('SizeZ="4" SizeC="1"', 'SizeZ="1" SizeC="4"')
    with tifffile.TiffWriter(path) as tif:
        for page in range(3):
            described = text.format(data="<TiffData/>", planes="") if page == 0 else None
            tif.write(STACK[page], description=described, metadata=None, contiguous=False)
    with pytest.raises(InputFileError, match=r"s\.ome\.tif: holds 3 of the 4 planes"):
        read_detectors(path)
