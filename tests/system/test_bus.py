"""Both buses keep the same promises; the one between processes runs over real sockets."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest
import zmq

from semagent.bus import Bus, LocalBus, LocalHub
from semagent.bus.zeromq import ZmqBus
from semagent.channels import Role
from semagent.clock import SystemClock
from semagent.errors import RecordError, RoleError
from semagent.types import (
    Command,
    Event,
    FrameHeader,
    GateStatus,
    Issuer,
    Optics,
    Outcome,
    Reply,
    Scan,
    StagePosition,
    Stop,
)
from semagent.wire import Message, encode

Connect = Callable[[], None]
Pair = tuple[Bus, Bus, Connect]
TOKEN = "only for this test"  # noqa: S105 - it guards nothing else


@pytest.fixture(params=["local", "zeromq"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """An acquire and a control end; subscribe and serve first, then call the third."""
    if request.param == "local":
        hub = LocalHub(SystemClock())
        yield LocalBus(hub, Role.ACQUIRE), LocalBus(hub, Role.CONTROL), lambda: None
        return
    acquire = ZmqBus(Role.ACQUIRE, TOKEN, serves="command")
    control = ZmqBus(Role.CONTROL, TOKEN, serves="request")
    roles = {Role.ACQUIRE: acquire.endpoints, Role.CONTROL: control.endpoints}

    def connect() -> None:
        listeners = {bus.role: bus.listens for bus in (acquire, control)}
        acquire.connect(roles)
        control.connect(roles)
        for bus in (acquire, control):
            bus.await_listeners(listeners, timeout_s=10.0)

    yield acquire, control, connect
    acquire.close()
    control.close()


def header(sequence: int) -> FrameHeader:
    return FrameHeader(
        sequence=sequence,
        monotonic_ns=sequence,
        wall_ns=0,
        detector="SE2",
        scan=Scan(width_px=64, height_px=48, bit_depth=16),
        optics=Optics(working_distance_m=0.005),
        stage=StagePosition(),
        settings_rev=1,
    )


def status(number: int) -> GateStatus:
    return GateStatus(armed=False, reason=str(number), monotonic_ns=number)


def event(number: int) -> Event:
    return Event(kind="count", role="acquire", message=str(number), monotonic_ns=number, wall_ns=0)


def command(number: int) -> Command:
    return Command(id=str(number), issuer=Issuer.OPERATOR, action=Stop())


def until(bus: Bus, condition: Callable[[], bool]) -> bool:
    end = time.perf_counter() + 5.0
    while not (met := condition()) and time.perf_counter() < end:
        bus.wait(0.05)
    return met


def test_frames_arrive_with_their_pixels(pair: Pair):
    acquire, control, connect = pair
    frames = control.subscribe("frame")
    acquire.subscribe("heartbeat")
    connect()
    pixels = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    acquire.publish("frame", header(1), pixels)
    assert until(control, lambda: bool(frames))
    got = frames.take()
    assert got is not None
    assert got.value == header(1)
    assert got.sender == Role.ACQUIRE
    assert np.array_equal(got.pixels, pixels)


def test_a_slow_reader_sees_the_newest_frame_and_counts_the_rest(pair: Pair):
    acquire, control, connect = pair
    frames = control.subscribe("frame")
    last = control.subscribe("event")
    connect()
    pixels = np.zeros((48, 64), np.uint8)
    for sequence in range(1, 51):
        acquire.publish("frame", header(sequence), pixels)
        time.sleep(0.001)
    acquire.publish("event", event(1))
    assert until(control, lambda: bool(last))
    assert until(control, lambda: frames.skipped == 49)
    got = frames.take()
    assert got is not None
    assert got.value.sequence == 50
    assert frames.missing == 0


def test_lossless_channels_keep_everything_in_order(pair: Pair):
    acquire, control, connect = pair
    events = control.subscribe("event")
    connect()
    for number in range(1, 201):
        acquire.publish("event", event(number))
        time.sleep(0.0002)
    seen: list[int] = []

    def all_there() -> bool:
        while (got := events.take()) is not None:
            seen.append(got.value.monotonic_ns)
        return len(seen) == 200

    assert until(control, all_there)
    assert seen == list(range(1, 201))
    assert events.missing == 0


def test_a_command_is_answered_to_whoever_sent_it(pair: Pair):
    acquire, control, connect = pair
    acquire.serve("command")
    control.serve("request")
    connect()
    control.send("command", command(1))
    delivered = []

    def there() -> bool:
        delivered.extend(acquire.deliveries())
        return bool(delivered)

    assert until(acquire, there)
    assert delivered[0].value == command(1)
    reply = Reply(command=command(1), outcome=Outcome.APPLIED, monotonic_ns=3, next_sequence=9)
    delivered[0].answer(reply)
    answers = []

    def answered() -> bool:
        answers.extend(control.answers())
        return bool(answers)

    assert until(control, answered)
    assert answers == [reply]
    assert acquire.answers() == []


def test_urgent_values_do_not_wait_for_the_role(pair: Pair):
    acquire, control, connect = pair
    seen: list[object] = []
    acquire.serve("command", on_urgent=seen.append)
    connect()
    control.send("command", command(1))
    # The acquire role never asks for its deliveries here: it is busy exposing a frame.
    end = time.perf_counter() + 5.0
    while not seen and time.perf_counter() < end:
        time.sleep(0.005)
    assert seen == [command(1)]


def test_what_nobody_serves_is_an_error(pair: Pair):
    _, control, connect = pair
    connect()
    with pytest.raises(RoleError, match="weather"):
        control.send("weather", command(1))


def test_heartbeats_say_what_a_role_is_doing(pair: Pair):
    acquire, control, connect = pair
    beats = control.subscribe("heartbeat")
    connect()
    acquire.beat(busy=True, processed=12, skipped=3)

    def busy() -> bool:
        got = beats.take()
        return got is not None and got.value.busy_since_ns is not None

    assert until(control, busy)


class Kept:
    """A recorder that keeps what it is given, and can be made to fail."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.heard = 0
        self.heard_before_record: list[int] = []

    def record(self, message: Message) -> None:
        self.heard_before_record.append(self.heard)
        self.messages.append(message)


def test_the_record_comes_before_the_listeners():
    kept = Kept()
    hub = LocalHub(SystemClock(), kept)
    acquire, control = LocalBus(hub, Role.ACQUIRE), LocalBus(hub, Role.CONTROL)
    frames = control.subscribe("frame")
    for sequence in (1, 2):
        acquire.publish("frame", header(sequence), np.zeros((48, 64), np.uint8))
        kept.heard += bool(frames.take())
    acquire.beat(busy=False, processed=1, skipped=0)
    assert [message.topic for message in kept.messages] == ["frame", "frame"]
    assert kept.heard_before_record == [0, 1]


def test_two_roles_cannot_serve_the_same_channel():
    hub = LocalHub(SystemClock())
    LocalBus(hub, Role.ACQUIRE).serve("command")
    with pytest.raises(RoleError, match="two roles serve 'command'"):
        LocalBus(hub, Role.CONTROL).serve("command")


@pytest.fixture
def buses() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def closing(stack: ExitStack, bus: ZmqBus) -> ZmqBus:
    stack.callback(bus.close)
    return bus


def test_the_record_role_gets_every_message(buses: ExitStack):
    record = closing(buses, ZmqBus(Role.RECORD, TOKEN, collects=True))
    acquire = closing(buses, ZmqBus(Role.ACQUIRE, TOKEN, serves="command"))
    roles = {Role.RECORD: record.endpoints, Role.ACQUIRE: acquire.endpoints}
    record.connect(roles)
    acquire.connect(roles)
    pixels = np.full((48, 64), 9, np.uint8)
    seen = []
    for sequence in range(1, 101):
        acquire.publish("frame", header(sequence), pixels)
        got = record.collect(timeout_s=5.0)
        assert got is not None
        seen.append(got.value.sequence)
    assert seen == list(range(1, 101))
    assert record.collect(timeout_s=0.0) is None


def test_a_record_that_does_not_keep_up_ends_the_run(buses: ExitStack):
    record = closing(buses, ZmqBus(Role.RECORD, TOKEN, collects=True))
    acquire = closing(buses, ZmqBus(Role.ACQUIRE, TOKEN, record_timeout_s=0.05))
    roles = {Role.RECORD: record.endpoints, Role.ACQUIRE: acquire.endpoints}
    record.connect(roles)
    acquire.connect(roles)
    # Nobody collects; what the sockets and the kernel buffer is small beside these frames.
    pixels = np.zeros((2048, 2048), np.uint8)

    def fill() -> None:
        for sequence in range(1, 100):
            acquire.publish("frame", header(sequence), pixels)

    with pytest.raises(RecordError, match="too slow or the record role died"):
        fill()


def test_a_stranger_without_the_token_hears_nothing_and_moves_nothing(buses: ExitStack):
    acquire = closing(buses, ZmqBus(Role.ACQUIRE, TOKEN, serves="command"))
    stranger = closing(buses, ZmqBus(Role.CONTROL, "a guess"))
    acquire.serve("command")
    events = stranger.subscribe("event")
    roles = {Role.ACQUIRE: acquire.endpoints}
    acquire.connect(roles)
    stranger.connect(roles)
    stranger.send("command", command(1))
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        acquire.publish("event", event(1))
        time.sleep(0.01)
    assert acquire.deliveries() == []
    assert not events


@pytest.mark.parametrize(
    "parts",
    [
        [b"command", b"sem9", b"\x80"],
        encode(Message(topic="gate", sender="control", number=1, value=status(1))),
    ],
    ids=["version", "channel"],
)
def test_another_version_or_channel_is_refused_counted_and_harmless(
    buses: ExitStack, parts: list[bytes]
):
    acquire = closing(buses, ZmqBus(Role.ACQUIRE, TOKEN, serves="command"))
    control = closing(buses, ZmqBus(Role.CONTROL, TOKEN))
    acquire.serve("command")
    beats = control.subscribe("heartbeat")
    roles = {Role.ACQUIRE: acquire.endpoints}
    acquire.connect(roles)
    control.connect(roles)
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.plain_username, dealer.plain_password = b"semagent", TOKEN.encode()
    dealer.connect(acquire.endpoints.services["command"])
    dealer.send_multipart(parts)

    def refused() -> bool:
        got = beats.take()
        return got is not None and got.value.refused == 1

    assert until(control, refused)
    assert acquire.deliveries() == []
    dealer.close(linger=0)
    context.term()


def test_who_sends_on_and_on_keeps_nobody_from_being_heard(buses: ExitStack):
    acquire = closing(buses, ZmqBus(Role.ACQUIRE, TOKEN, serves="command"))
    control = closing(buses, ZmqBus(Role.CONTROL, TOKEN))
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.plain_username, dealer.plain_password = b"semagent", TOKEN.encode()
    dealer.connect(acquire.endpoints.services["command"])
    message = encode(
        Message(topic="command", sender=Role.CONTROL, number=0, value=command(1), pixels=None)
    )
    flooding = True

    def once_more(_: object) -> None:
        if flooding:
            time.sleep(0.001)  # longer than a message takes to come: there is always one more
            dealer.send_multipart(message)

    acquire.serve("command", on_urgent=once_more)
    beats = control.subscribe("heartbeat")
    for _ in range(40):
        dealer.send_multipart(message)
    roles = {Role.ACQUIRE: acquire.endpoints}
    control.connect(roles)
    acquire.connect(roles)  # from here on the flood is the acquire role's own
    heard: list[int] = []

    def several() -> bool:
        if (got := beats.take()) is not None:
            heard.append(got.number)
        return len(heard) > 3

    met = until(control, several)
    flooding = False
    acquire.close()  # its thread has the socket
    dealer.close(linger=0)
    context.term()
    assert met


def test_a_process_that_takes_anothers_place_is_heard_again(buses: ExitStack):
    control = closing(buses, ZmqBus(Role.CONTROL, TOKEN))
    infer = ZmqBus(Role.INFER, TOKEN)
    endpoints = infer.endpoints
    events = control.subscribe("event")
    control.connect({Role.INFER: endpoints})
    infer.connect({})
    infer.close()
    again = closing(buses, ZmqBus(Role.INFER, TOKEN, rebind=endpoints))
    again.connect({})

    def heard() -> bool:
        again.publish("event", event(1))
        return bool(events)

    assert until(control, heard)


def test_an_address_in_use_is_named(buses: ExitStack):
    first = closing(buses, ZmqBus(Role.INFER, TOKEN))
    with pytest.raises(RoleError, match="infer role cannot listen on tcp://127"):
        ZmqBus(Role.INFER, TOKEN, rebind=first.endpoints)


def test_who_does_not_listen_in_time_is_named():
    with ExitStack() as ends:
        acquire = closing(ends, ZmqBus(Role.ACQUIRE, TOKEN, serves="command"))
        acquire.connect({})
        with pytest.raises(RoleError, match=r"2 subscriptions are missing \(event, frame\)"):
            acquire.await_listeners(
                {Role.INFER: ("frame", "heartbeat"), Role.CONTROL: ("event",)}, 0.05
            )


def test_a_heartbeat_tells_of_messages_that_never_came():
    hub = LocalHub(SystemClock())
    listener = LocalBus(hub, Role.INFER)
    listener.subscribe("event")
    beats = LocalBus(hub, Role.CONSOLE).subscribe("heartbeat")
    for number in (1, 5):
        hub.publish(Message(topic="event", sender="acquire", number=number, value=event(number)))
    listener.beat(busy=False, processed=0, skipped=0)
    beat = beats.take()
    assert beat is not None
    assert beat.value.missing == 3


def test_without_its_record_a_role_still_speaks_but_shows_no_frame():
    with ExitStack() as ends:
        record = closing(ends, ZmqBus(Role.RECORD, TOKEN, collects=True))
        acquire = closing(
            ends, ZmqBus(Role.ACQUIRE, TOKEN, serves="command", record_timeout_s=60.0)
        )
        control = closing(ends, ZmqBus(Role.CONTROL, TOKEN, serves="request"))
        frames, events = control.subscribe("frame"), control.subscribe("event")
        roles = {bus.role: bus.endpoints for bus in (record, acquire, control)}
        for bus in (record, acquire, control):
            bus.connect(roles)
        acquire.await_listeners({Role.CONTROL: control.listens}, 10.0)
        acquire.stop_recording()
        with pytest.raises(RecordError, match="the record is lost"):
            acquire.publish("frame", header(1), np.zeros((48, 64), np.uint8))
        acquire.publish("event", event(1))
        assert until(control, lambda: bool(events))
        assert not frames
