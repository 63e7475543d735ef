"""Which container should a session keep its raw frames in?

Compares OME-TIFF (one file per frame, or one growing file) with OME-Zarr (format 2 and 3, one
chunk per frame), with and without lossless compression, on two counts::

    python benchmarks/recording.py speed    # time per frame until it is safe, and size
    python benchmarks/recording.py kill     # frames lost when the writer is killed

*Safe* means "in the operating system's hands", which outlives a crash of the process, or, in
the columns ``sync``, "on the device", which outlives a crash of the machine. ``kill`` starts a
writer process, kills it at a random moment, and looks for every frame it had acknowledged; it
does so again and again. ``session`` is what semagent ships: everything around the frame too
(hash, header, events line). ``probe`` is the device itself: a bare file write of the raw bytes.

Needs ``zarr`` and ``numcodecs`` beside semagent itself.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numcodecs
import numpy as np
import tifffile
import zarr
from zarr.codecs import ZstdCodec

from semagent.clock import SystemClock
from semagent.session import EngineRecord, SessionReader, SessionWriter
from semagent.types import Capabilities, Frame, FrameHeader, Optics, Pixels, Scan, StagePosition

HEIGHT, WIDTH = 768, 1024
PIXEL_SIZE_NM = 4.0
OME = {"axes": "YX", "PhysicalSizeX": PIXEL_SIZE_NM, "PhysicalSizeXUnit": "nm"}


def micrograph(bit_depth: int, seed: int = 0) -> Pixels:
    """A specimen of smooth structure with shot noise, shape (768, 1024), as a SEM would see it."""
    rng = np.random.default_rng(seed)
    y = np.fft.fftfreq(HEIGHT)[:, None]
    x = np.fft.rfftfreq(WIDTH)[None, :]
    power = 1.0 / (1.0 + (np.hypot(y, x) / 0.02) ** 2)
    structure = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(HEIGHT, WIDTH))) * power)
    electrons = rng.poisson(np.clip(60.0 + 20.0 * structure / structure.std(), 1.0, None))
    full_scale = 2**bit_depth - 1
    grey = np.clip(electrons / 160.0, 0.0, 1.0) * full_scale
    return np.array(grey, np.uint8) if bit_depth == 8 else np.array(grey, np.uint16)


def frame_pixels(base: Pixels, sequence: int) -> Pixels:
    """The pixels of frame ``sequence``: known to whoever checks, different in every frame."""
    return base ^ base.dtype.type(sequence % 251)


def sync_file(path: Path) -> None:
    """Have the device take a file or, on POSIX, a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


Write = Callable[[int, Pixels], None]


class Candidate(NamedTuple):
    """One way to keep frames, numbered from 1.

    Attributes:
        start: given a folder, sample pixels and whether to synchronise, returns what writes a
            frame and returns when it is safe.
        read: reads one frame back, as a reader that knows the layout would.
        show: opens the whole as a plain tool would, which knows nothing of what should be there.
    """

    start: Callable[[Path, Pixels, bool], Write]
    read: Callable[[Path, int], Pixels]
    show: Callable[[Path], Iterable[Pixels]]


def _probe(folder: Path, _pixels: Pixels, sync: bool) -> Write:
    def write(sequence: int, pixels: Pixels) -> None:
        with (folder / f"{sequence:08d}.raw").open("wb") as file:
            file.write(pixels.data)
            if sync:
                file.flush()
                os.fsync(file.fileno())

    return write


def _read_probe(folder: Path, sequence: int) -> Pixels:
    return np.fromfile(folder / f"{sequence:08d}.raw", np.uint8).reshape(HEIGHT, WIDTH)


def _show_probe(folder: Path) -> Iterable[Pixels]:
    for path in sorted(folder.glob("*.raw")):
        yield np.fromfile(path, np.uint8).reshape(HEIGHT, WIDTH)


def _tiff_files(**compression: Any) -> Candidate:
    """One OME-TIFF a frame, renamed into place when it is whole."""

    def start(folder: Path, _pixels: Pixels, sync: bool) -> Write:
        def write(sequence: int, pixels: Pixels) -> None:
            whole = folder / f"{sequence:08d}.ome.tif"
            partial = whole.with_suffix(".partial")
            with partial.open("wb") as file:
                tifffile.imwrite(file, pixels, ome=True, metadata=OME, **compression)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            partial.replace(whole)
            if sync:
                sync_file(folder)

        return write

    def read(folder: Path, sequence: int) -> Pixels:
        return tifffile.imread(folder / f"{sequence:08d}.ome.tif")

    return Candidate(start, read, _show_tiffs)


def _show_tiffs(folder: Path) -> Iterable[Pixels]:
    for path in sorted(folder.rglob("*.ome.tif")):
        yield tifffile.imread(path)


def _tiff_pages(folder: Path, _pixels: Pixels, sync: bool) -> Write:
    """One OME-TIFF that grows by a page a frame."""
    file = (folder / "frames.ome.tif").open("w+b")
    tiff = tifffile.TiffWriter(file, ome=True, bigtiff=True)

    def write(_sequence: int, pixels: Pixels) -> None:
        tiff.write(pixels, metadata=OME)
        file.flush()
        if sync:
            os.fsync(file.fileno())

    return write


def _read_page(folder: Path, sequence: int) -> Pixels:
    return tifffile.imread(folder / "frames.ome.tif", key=sequence - 1)


def _show_pages(folder: Path) -> Iterable[Pixels]:
    stack = tifffile.imread(folder / "frames.ome.tif")
    return stack if stack.ndim == 3 else stack[None]


def _zarr_chunks(version: Literal[2, 3], compressor: Any) -> Candidate:
    """One OME-Zarr array of (frame, y, x) with a chunk per frame, growing by one."""
    axes = [
        {"name": "t", "type": "time"},
        {"name": "y", "type": "space"},
        {"name": "x", "type": "space"},
    ]
    scale = [{"type": "scale", "scale": [1.0, PIXEL_SIZE_NM, PIXEL_SIZE_NM]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    image: dict[str, Any] = {"axes": axes, "datasets": levels}

    def start(folder: Path, pixels: Pixels, sync: bool) -> Write:
        group = zarr.open_group(folder, mode="w", zarr_format=version)
        if version == 2:
            group.attrs.update({"multiscales": [{**image, "version": "0.4"}]})
        else:
            group.attrs.update({"ome": {"version": "0.5", "multiscales": [image]}})
        array = group.create_array(
            "0",
            shape=(0, *pixels.shape),
            chunks=(1, *pixels.shape),
            dtype=pixels.dtype,
            compressors=compressor,
            chunk_key_encoding={"name": "v2" if version == 2 else "default", "separator": "/"},
        )
        root = folder / "0"
        chunks, metadata = (root, ".zarray") if version == 2 else (root / "c", "zarr.json")

        def write(sequence: int, pixels: Pixels) -> None:
            array.resize((sequence, *pixels.shape))
            array[sequence - 1] = pixels
            if sync:
                row = chunks / f"{sequence - 1}" / "0"
                for path in (row / "0", row, row.parent, chunks, root / metadata, root):
                    sync_file(path)

        return write

    def read(folder: Path, sequence: int) -> Pixels:
        return np.asarray(_zarr_array(folder)[sequence - 1])

    def show(folder: Path) -> Iterable[Pixels]:
        array = _zarr_array(folder)
        return (np.asarray(array[index]) for index in range(array.shape[0]))

    return Candidate(start, read, show)


def _zarr_array(folder: Path) -> Any:
    return zarr.open_group(folder, mode="r")["0"]


def _session(folder: Path, pixels: Pixels, sync: bool) -> Write:
    """What semagent ships."""
    clock = SystemClock()
    writer = SessionWriter(
        folder,
        configuration={},
        capabilities=Capabilities(driver="benchmark", microscope="none", verified_on=None),
        engine=EngineRecord(name="none"),
        clock=clock,
        sync=sync,
    )
    scan = Scan(
        width_px=WIDTH,
        height_px=HEIGHT,
        bit_depth=8 if pixels.dtype == np.uint8 else 16,
        pixel_size_m=PIXEL_SIZE_NM * 1e-9,
    )

    def write(sequence: int, pixels: Pixels) -> None:
        header = FrameHeader(
            sequence=sequence,
            monotonic_ns=clock.monotonic_ns(),
            wall_ns=clock.wall_ns(),
            detector="SE2",
            scan=scan,
            optics=Optics(working_distance_m=5.2e-3, stigmator_x=0.1, stigmator_y=-0.1),
            stage=StagePosition(x_m=1e-3, y_m=2e-3),
            settings_rev=1,
        )
        writer.write_frame(Frame(header, pixels))

    return write


def _read_session(folder: Path, sequence: int) -> Pixels:
    return SessionReader(folder).frame(sequence, verify=True).pixels


def _zlib(level: int) -> dict[str, Any]:
    return {"compression": "zlib", "compressionargs": {"level": level}, "predictor": True}


_ZSTD = {"compression": "zstd", "compressionargs": {"level": 1}, "predictor": True}

CANDIDATES = {
    "probe": Candidate(_probe, _read_probe, _show_probe),
    "OME-TIFF files": _tiff_files(),
    "OME-TIFF files, deflate": _tiff_files(**_zlib(1)),
    "OME-TIFF files, lzw": _tiff_files(compression="lzw", predictor=True),
    "OME-TIFF files, zstd": _tiff_files(**_ZSTD),
    "OME-TIFF pages": Candidate(_tiff_pages, _read_page, _show_pages),
    "OME-Zarr 0.4": _zarr_chunks(2, None),
    "OME-Zarr 0.4, zstd": _zarr_chunks(2, numcodecs.Zstd(level=1)),
    "OME-Zarr 0.5": _zarr_chunks(3, None),
    "OME-Zarr 0.5, zstd": _zarr_chunks(3, ZstdCodec(level=1)),
    "session": Candidate(_session, _read_session, _show_tiffs),
}


def measure(name: str, bit_depth: int, sync: bool, frames: int, root: Path) -> dict[str, Any]:
    """Time every write of a run and weigh what it leaves on the disk."""
    base = micrograph(bit_depth)
    folder = Path(tempfile.mkdtemp(dir=root))
    if hasattr(os, "sync"):
        os.sync()  # what the run before left in the cache is not this one's to write
    write = CANDIDATES[name].start(folder, base, sync)
    times_ms = []
    for sequence in range(1, frames + 1):
        pixels = frame_pixels(base, sequence)
        begin = time.perf_counter()
        write(sequence, pixels)
        times_ms.append((time.perf_counter() - begin) * 1e3)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder)
    cuts = statistics.quantiles(times_ms, n=100)
    return {
        "store": name,
        "bit_depth": bit_depth,
        "sync": sync,
        "frames_per_s": round(1e3 / statistics.fmean(times_ms), 1),
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
        "size_of_raw": round(size / (frames * base.nbytes), 3),
    }


def write_until_killed(name: str, folder: Path) -> None:
    """Write frames for ever, and say on standard output when each is safe."""
    base = micrograph(8)
    write = CANDIDATES[name].start(folder, base, False)
    for sequence in itertools.count(1):
        write(sequence, frame_pixels(base, sequence))
        os.write(1, f"{sequence}\n".encode())


def describes(folder: Path) -> bool:
    """Whether the pixel size can still be found in what a writer left."""
    tiff = next(iter(sorted(folder.rglob("*.ome.tif"))), None)
    if tiff is not None:
        with tifffile.TiffFile(tiff) as file:
            return "PhysicalSizeX" in (file.ome_metadata or "")
    try:
        attributes = zarr.open_group(folder, mode="r").attrs
    except FileNotFoundError:
        return False
    return "multiscales" in attributes or "ome" in attributes


def kill_once(name: str, root: Path, wait_s: float) -> dict[str, int]:
    """Start a writer, kill it ``wait_s`` after its first frame, and count what is left.

    Returns:
        ``acknowledged``: frames said to be safe; ``lost``: those that cannot be read back;
        ``hidden``: those a plain tool does not show; ``false``: pictures it shows that nobody
        ever took; ``undescribed``: 1 if the pixel size is gone.
    """
    folder = Path(tempfile.mkdtemp(dir=root))
    command = [sys.executable, __file__, "write", "--store", name, "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(wait_s)
        child.kill()
        acknowledged = (first + child.stdout.read()).count(b"\n")
    base = micrograph(8)
    taken = [frame_pixels(base, sequence) for sequence in range(1, acknowledged + 2)]
    candidate = CANDIDATES[name]

    def readable(sequence: int) -> bool:
        try:
            return np.array_equal(candidate.read(folder, sequence), taken[sequence - 1])
        except Exception:  # noqa: BLE001 - whatever a reader raises, the frame is lost
            return False

    lost = sum(not readable(sequence) for sequence in range(1, acknowledged + 1))
    try:
        shown = list(candidate.show(folder))
    except Exception:  # noqa: BLE001 - whatever a reader raises, it shows nothing
        shown = []
    right = [np.array_equal(*pair) for pair in zip(shown, taken, strict=False)]
    undescribed = not describes(folder)
    shutil.rmtree(folder)
    return {
        "acknowledged": acknowledged,
        "lost": lost,
        "hidden": acknowledged - sum(right[:acknowledged]),
        "false": len(shown) - sum(right),
        "undescribed": int(undescribed),
    }


def kill(name: str, times: int, root: Path) -> dict[str, Any]:
    """Kill a writer many times and add up what was lost."""
    waits_s = np.random.default_rng(1).uniform(0.0, 0.3, times)
    runs = [kill_once(name, root, float(wait_s)) for wait_s in waits_s]
    return {"store": name, "kills": times} | {key: sum(run[key] for run in runs) for key in runs[0]}


def main() -> None:
    """Run one of the comparisons and print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "kill", "write"))
    parser.add_argument("--store", choices=CANDIDATES, action="append")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=25)
    parser.add_argument("--folder", type=Path, help="on the device to measure")
    options = parser.parse_args()
    stores = options.store or list(CANDIDATES)
    if options.what == "write":
        write_until_killed(stores[0], options.folder)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        for name in stores:
            if options.what == "kill":
                print(json.dumps(kill(name, options.times, Path(scratch))), flush=True)
                continue
            for bit_depth in (8, 16):
                for sync in (False, True):
                    results = [
                        measure(name, bit_depth, sync, options.frames, Path(scratch))
                        for _ in range(options.rounds)
                    ]
                    # The round that other work on the machine disturbed least.
                    best = min(results, key=lambda result: result["p50_ms"])
                    print(json.dumps(best), flush=True)


if __name__ == "__main__":
    main()
