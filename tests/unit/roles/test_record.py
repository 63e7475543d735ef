"""The recorder on the bus: what is said is kept, and a hole is an error."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from semagent.bus import LocalBus, LocalHub
from semagent.bus.zeromq import ZmqBus
from semagent.channels import CHANNELS, Role
from semagent.clock import ManualClock
from semagent.config import RecordOptions, find_config, load_config
from semagent.errors import RecordError, UsageError
from semagent.parts import make_recorder
from semagent.roles import RecordRole, SessionRecorder
from semagent.session import SessionReader, verify
from semagent.session.layout import derived_file
from semagent.session.ometiff import read_pixels
from semagent.session.omexml import DERIVED_NAMESPACE
from semagent.testing.engines import figures_of, frame_of
from semagent.types import (
    Capabilities,
    Event,
    FocusBelief,
    GateStatus,
    Heartbeat,
)
from semagent.wire import Message

TYPES = {name: channel.type for name, channel in CHANNELS.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "session"


@pytest.fixture
def recorder(folder: Path) -> Iterator[SessionRecorder]:
    config = load_config(find_config("simulated"))
    capabilities = Capabilities(driver="simulated", microscope="test", verified_on=None)
    recorder = make_recorder(folder, config, capabilities, "sharpness", ManualClock())
    yield recorder
    recorder.close()


def status(number: int, sender: str = "acquire") -> Message:
    value = GateStatus(armed=False, reason=f"{number}", monotonic_ns=number)
    return Message(topic="gate", sender=sender, number=number, value=value)


def test_everything_recorded_can_be_read_back(recorder: SessionRecorder, folder: Path):
    hub = LocalHub(ManualClock(), recorder)
    acquire = LocalBus(hub, Role.ACQUIRE)
    frame = frame_of(np.arange(48, dtype=np.uint8).reshape(6, 8))
    acquire.publish("frame", frame.header, frame.pixels)
    event = Event(kind="k", role="acquire", message="m", monotonic_ns=1, wall_ns=2, data={"a": [1]})
    acquire.publish("event", event)
    acquire.publish("heartbeat", Heartbeat(role="acquire", monotonic_ns=1))
    recorder.close()
    reader = SessionReader(folder)
    assert reader.manifest.complete
    assert reader.manifest.configuration["instrument"] == "Simulated SEM"
    assert np.array_equal(reader.frame(1).pixels, frame.pixels)
    entries = [(entry.channel, entry.value) for entry in reader.events(TYPES)]
    assert ("event", event) in entries
    assert {channel for channel, _ in entries} == {"frame", "event"}


@pytest.mark.parametrize("sync", [True, False])
def test_sync_brings_a_frame_and_what_was_said_before_it_to_the_device(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sync: bool
):
    on_device: dict[int, int] = {}
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        status = os.fstat(descriptor)
        on_device[status.st_ino] = status.st_size
        fsync(descriptor)

    def all_of(name: str) -> bool:
        status = (folder / name).stat()
        return on_device.get(status.st_ino) == status.st_size

    monkeypatch.setattr(os, "fsync", spy)
    config = msgspec.structs.replace(
        load_config(find_config("simulated")), record=RecordOptions(sync=sync)
    )
    capabilities = Capabilities(driver="simulated", microscope="test", verified_on=None)
    recorder = make_recorder(folder, config, capabilities, "sharpness", ManualClock())
    acquire = LocalBus(LocalHub(ManualClock(), recorder), Role.ACQUIRE)
    frame = frame_of(np.arange(48, dtype=np.uint8).reshape(6, 8))
    acquire.publish("gate", GateStatus(armed=False, reason="", monotonic_ns=1))
    acquire.publish("frame", frame.header, frame.pixels)
    assert all_of("events.jsonl") is sync
    assert all_of("frames/frame-00000001.ome.tif") is sync
    acquire.publish("gate", GateStatus(armed=True, reason="", monotonic_ns=2))
    assert not all_of("events.jsonl")
    recorder.close()
    assert all_of("events.jsonl") is sync
    assert all_of("manifest.json") is sync


def test_a_hole_in_what_arrives_is_an_error(recorder: SessionRecorder):
    recorder.record(status(1))
    recorder.record(status(2))
    with pytest.raises(RecordError, match="1 messages of channel 'gate' from acquire were lost"):
        recorder.record(status(4))


def test_senders_and_channels_are_counted_apart_and_may_start_again(recorder: SessionRecorder):
    recorder.record(status(7))
    recorder.record(status(3, sender="infer"))
    recorder.record(status(8))
    recorder.record(status(1, sender="infer"))
    recorder.record(status(2, sender="infer"))


def said_of(sequence: int) -> dict[str, Message]:
    """A frame and what is said of it, by channel."""
    frame = frame_of(np.full((6, 8), sequence, np.uint8), sequence=sequence)
    read = figures_of(frame.header)
    belief = FocusBelief(sequence=sequence, settings_rev=0, frames=1)
    said = {
        "frame": ("acquire", frame.header, frame.pixels),
        "analysis": ("infer", read, None),
        "restored": ("restore", read, frame.pixels),
        "belief": ("control", belief, None),
    }
    return {
        topic: Message(topic=topic, sender=sender, number=sequence, value=value, pixels=pixels)
        for topic, (sender, value, pixels) in said.items()
    }


def test_what_is_said_of_a_frame_that_is_still_on_its_way_waits_for_it(
    recorder: SessionRecorder, folder: Path
):
    """As when the disk was slow: the frames are behind other messages of their sender."""
    first, second = said_of(1), said_of(2)
    for topic in ("restored", "belief", "analysis"):
        recorder.record(first[topic])
    recorder.record(second["restored"])
    recorder.record(first["frame"])
    recorder.record(status(1))
    recorder.record(second["frame"])
    recorder.close()
    reader = SessionReader(folder)
    one = ["frame", "restored", "derived", "belief", "analysis"]
    assert [entry.channel for entry in reader.events(TYPES)] == [*one, "gate", *one[:3]]
    assert verify(folder) == []


def test_a_restored_frame_names_the_options_of_the_engine_that_made_it(
    recorder: SessionRecorder, folder: Path
):
    said = said_of(1)
    recorder.record(said["frame"])
    recorder.record(said["restored"])
    _, notes = read_pixels(folder / derived_file(1))
    assert json.loads(notes[DERIVED_NAMESPACE])["parameters"] == {"threads": 1}


def test_a_restored_frame_whose_raw_frame_never_came_is_a_hole(
    recorder: SessionRecorder, folder: Path
):
    recorder.record(said_of(1)["restored"])
    with pytest.raises(RecordError, match="raw frame 1 has not been recorded"):
        recorder.close()
    assert not SessionReader(folder).manifest.complete


def test_a_folder_in_use_is_refused(recorder: SessionRecorder, folder: Path):
    recorder.close()
    config = load_config(find_config("simulated"))
    capabilities = Capabilities(driver="simulated", microscope="test", verified_on=None)
    with pytest.raises(UsageError, match="never overwrites"):
        make_recorder(folder, config, capabilities, "sharpness", ManualClock())


def test_a_record_that_the_run_has_gone_on_without_is_not_complete(
    recorder: SessionRecorder, folder: Path
):
    with contextlib.closing(ZmqBus(Role.RECORD, "token", collects=True)) as bus:
        bus.stop_recording()  # it was silent for too long, and is heard of again
        RecordRole(bus, recorder).close()
    (problem,) = verify(folder)
    assert problem.kind == "not_closed"
    assert "what the run still did" in problem.message
