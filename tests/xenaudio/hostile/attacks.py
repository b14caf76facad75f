# SPDX-License-Identifier: LGPL-2.1-or-later
"""The list of what a hostile guest can do. `ATTACKS` has all of them, by name.

Each is a function of a `RawFrontend` whose device is new (state 1, with at least one playback and
one capture stream). It does what its docstring's first half says, and raises WrongAnswer unless the
backend does what the second half says. Whoever runs it checks beside that, for all of them alike:
the backend lives, a neighbour's stream in another domain is whole, nothing of it is to be found in
what this guest could read, and once the guest is destroyed nothing of it stays open or mapped.

    a bad request           an error response, and the stream lives on
    a broken ring           the device is closed (5, 6), and taken back when it negotiates anew
    nonsense in the store   the device is refused (5, 6), likewise
    too much of anything    this guest is made to wait, and nobody else

An attack whose end is the guest's death returns at that moment; destroy the guest then.
"""

from __future__ import annotations

import asyncio
import errno
import random
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import rawfrontend as raw
from rawfrontend import RawFrontend, RawStream, require, rw_payload

from xenaudio.core.errors import XenAudioError
from xenaudio.core.hv import PAGE

Attack = Callable[[RawFrontend], Awaitable[None]]

ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    """Enter a function in the list."""
    ATTACKS[function.__name__] = function
    return function


async def opened(front: RawFrontend, *, capture: bool = False, start: bool = True) -> RawStream:
    """Connect honestly, and open a stream."""
    await front.connect()
    stream = front.recording if capture else front.playback
    pcm = await stream.open()
    if start:
        await stream.start(pcm)
    return stream


LARGE = 1024 * PAGE
"""Octets of a buffer whose directory has two pages."""


async def connect_large(front: RawFrontend) -> None:
    """Connect, with a configuration that the guest has changed to allow buffers of LARGE octets."""
    for stream in front.streams:
        await front.store.write(f"{stream.path}/buffer-size", str(LARGE))
    await front.negotiate()


async def stay_open(stream: RawStream) -> None:
    """The stream lives on."""
    await stream.works()
    require(await stream.front.backend_state() == raw.CONNECTED, "the device is not connected")


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Do something over and over in a thread."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@asynccontextmanager
async def anew(front: RawFrontend) -> AsyncIterator[None]:
    """Begin the handshake; what the body publishes must get the device refused."""
    await front.set_state(raw.INITIALISING)
    await front.prepare()
    yield
    await front.set_state(raw.INITIALISED)
    await front.is_closed()


# Requests out of place.


@attack
async def write_before_open(front: RawFrontend) -> None:
    """WRITE with nothing open: an error, and the stream lives on."""
    await front.connect()
    await front.playback.refused(raw.WRITE, rw_payload(0, 4096), raw.EIO)
    await stay_open(front.playback)


@attack
async def write_after_close(front: RawFrontend) -> None:
    """WRITE after CLOSE, while the pages are still granted: an error, and the stream lives on."""
    stream = await opened(front)
    await stream.succeed(raw.CLOSE)
    await stream.refused(raw.WRITE, rw_payload(0, 4096), raw.EIO)
    await stay_open(stream)


@attack
async def write_after_failed_open(front: RawFrontend) -> None:
    """WRITE after an OPEN that was refused, also one in place of a good one: an error each."""
    await front.connect()
    stream = front.playback
    bad = raw.open_payload(buffer_sz=8192, gref_directory=0)
    worse = raw.open_payload(buffer_sz=8192, gref_directory=0x7FFFFFF0)
    for again in range(2):
        await stream.refused(raw.OPEN, bad, raw.EINVAL)
        if not again:
            await stream.refused(raw.WRITE, rw_payload(0, 4096), raw.EIO)
        await stream.refused(raw.OPEN, worse)
        await stream.refused(raw.WRITE, rw_payload(0, 4096), raw.EIO)
        await stream.open()
    await stay_open(stream)


@attack
async def read_before_open(front: RawFrontend) -> None:
    """READ with nothing open: an error, and the stream lives on."""
    await front.connect()
    await front.recording.refused(raw.READ, rw_payload(0, 4096), raw.EIO)
    await stay_open(front.recording)


@attack
async def trigger_before_open(front: RawFrontend) -> None:
    """All TRIGGERs with nothing open, and after CLOSE: errors, and the stream lives on."""
    await front.connect()
    for stream in front.streams:
        for _ in range(2):
            await stream.all_refused(((raw.TRIGGER, bytes([kind])) for kind in range(4)), raw.EIO)
            await stay_open(stream)


@attack
async def close_twice(front: RawFrontend) -> None:
    """CLOSE with nothing open, and twice: as Linux does, so it succeeds."""
    await front.connect()
    for stream in front.streams:
        await stream.succeed(raw.CLOSE)
        await stream.open()
        await stream.succeed(raw.CLOSE)
        await stream.succeed(raw.CLOSE)
        await stay_open(stream)


@attack
async def open_twice(front: RawFrontend) -> None:
    """OPEN while it plays, thrice, with other pages: the old PCM is closed, events stay in step."""
    stream = await opened(front)
    for octets in (19200, 4800, 96000):
        await stream.moves()
        await stream.start(await stream.open(octets, octets // 4))
    await stream.moves()
    require(stream.positions[-1] < 200000, "the position did not begin anew")
    await stay_open(stream)


@attack
async def pause_when_stopped(front: RawFrontend) -> None:
    """PAUSE of what is stopped, RESUME of what is not paused: errors. START, STOP twice: fine."""
    stream = await opened(front, start=False)
    await stream.refused(raw.TRIGGER, bytes([raw.PAUSE]), raw.EINVAL)
    await stream.refused(raw.TRIGGER, bytes([raw.RESUME]), raw.EINVAL)
    for kind in (raw.START, raw.START, raw.PAUSE, raw.RESUME, raw.STOP, raw.STOP):
        await stream.trigger(kind)
    await stay_open(stream)


@attack
async def unknown_triggers(front: RawFrontend) -> None:
    """TRIGGERs of the 252 unknown types: errors, and the stream plays on."""
    stream = await opened(front)
    await stream.all_refused(((raw.TRIGGER, bytes([kind])) for kind in range(4, 256)), raw.EINVAL)
    await stay_open(stream)


@attack
async def unknown_operations(front: RawFrontend) -> None:
    """The 246 unknown operation codes, with nothing open and while playing: EOPNOTSUPP each."""
    await front.connect()
    stream = front.playback
    for _ in range(2):
        await stream.all_refused(
            ((operation, b"\xff" * 56) for operation in range(10, 256)), raw.EOPNOTSUPP
        )
        await stream.start(await stream.open())
    await stay_open(stream)


@attack
async def volume_out_of_bounds(front: RawFrontend) -> None:
    """The volume operations, anywhere in and far outside the buffer: an error, no access."""
    stream = await opened(front)
    await stream.all_refused(
        (
            (operation, rw_payload(offset, 8))
            for operation in (raw.SET_VOLUME, raw.GET_VOLUME, raw.MUTE, raw.UNMUTE)
            for offset in (0, 38396, 38400, 0x7FFF0000, 0xFFFFFFF8)
        ),
        *(raw.EOPNOTSUPP, raw.EINVAL),
    )
    await stay_open(stream)


@attack
async def repeated_ids(front: RawFrontend) -> None:
    """32 requests at once with one id: 32 answers with it, in order."""
    stream = await opened(front)
    for _ in range(raw.RING_MOST):
        stream.put(raw.WRITE, rw_payload(0, 0xFFFF0000), request_id=7)
    stream.push()
    for _ in range(raw.RING_MOST):
        answer = await stream.response()
        require((answer.id, answer.status) == (7, -raw.EINVAL), f"{answer}")
    await stay_open(stream)


@attack
async def reserved_fields(front: RawFrontend) -> None:
    """All reserved fields full: what they hold has no meaning, or is refused; nothing else."""
    await front.connect()
    stream = front.playback
    pcm = stream.pcm(38400)
    payload = raw.open_payload(
        buffer_sz=38400, gref_directory=pcm.gref, period_sz=3840, reserved=0xFFFF
    )
    for operation, octets in (
        (raw.OPEN, payload),
        (raw.WRITE, rw_payload(0, 38400)),
        (raw.TRIGGER, bytes([raw.START])),
        (raw.CLOSE, b""),
    ):
        answer = await stream.request(
            operation, octets.ljust(56, b"\xff"), reserved=b"\xff\xfe\xfd\xfc\xfb"
        )
        require(answer.status in (0, -raw.EINVAL), f"{answer}")
    await stay_open(stream)


# Offsets and lengths.

BUFFER = 38400  # octets, of `opened`


async def _bad_ranges(front: RawFrontend, *ranges: tuple[int, int]) -> None:
    """Have each range refused, when stopped and when started, by both kinds of streams."""
    await front.connect()
    for stream in front.streams:
        pcm = await stream.open()
        for started in (False, True):
            if started:
                await stream.start(pcm)
            operation = raw.READ if stream.capture else raw.WRITE
            await stream.all_refused(
                ((operation, rw_payload(*outside)) for outside in ranges), raw.EINVAL
            )
        await stay_open(stream)


@attack
async def far_offset(front: RawFrontend) -> None:
    """READ and WRITE at 0x7fff0000 and the like: errors, and the stream lives on."""
    await _bad_ranges(front, *((o, 4) for o in (0x7FFF0000, 0x80000000, 0xFFFFFFFC, 0xFFFFF000)))


@attack
async def range_that_wraps(front: RawFrontend) -> None:
    """offset + length of 2^32 and a little: errors, and the stream lives on."""
    await _bad_ranges(
        front, (0xFFFFF000, 0x1000), (0xFFFFF000, 0x2000), (4, 0xFFFFFFFC), (0x80000000, 0x80000004)
    )


@attack
async def offset_at_end(front: RawFrontend) -> None:
    """An offset of just buffer_sz, with and without octets: errors, and the stream lives on."""
    await _bad_ranges(front, (BUFFER, 4), (BUFFER, 0), (BUFFER - 4, 8), (BUFFER + 4, 0))


@attack
async def length_beyond_buffer(front: RawFrontend) -> None:
    """More octets than the buffer has, although its last page has room: errors."""
    await _bad_ranges(front, (0, BUFFER + 4), (0, BUFFER + 2560), (0, 0x80000000), (0, 0xFFFFFFFC))


@attack
async def part_of_a_frame(front: RawFrontend) -> None:
    """Lengths that are not of whole frames: errors, and the stream lives on."""
    await _bad_ranges(front, *((0, length) for length in (1, 2, 3, 5, 4095, BUFFER - 1)))


@attack
async def wrong_direction(front: RawFrontend) -> None:
    """READ of a playback stream, WRITE to a capture stream: errors; not an octet is changed."""
    await front.connect()
    for stream in front.streams:
        pcm = await stream.open()
        await stream.start(pcm)
        await stream.refused(
            raw.WRITE if stream.capture else raw.READ, rw_payload(0, 4096), raw.EINVAL
        )
        require(
            not pcm.memory.tobytes().strip(bytes([raw.MARK])), "the guest's pages were written to"
        )
        await stay_open(stream)


@attack
async def scan_to_play(front: RawFrontend) -> None:
    """WRITE at each page of the first MiB behind the buffer, then at steps through all 32 bits:
    errors each, so that nobody else's samples are ever heard."""
    stream = await opened(front)
    places = [BUFFER + page * PAGE for page in range(256)]
    places += [step << 22 for step in range(1, 1024, 3)]
    await stream.all_refused(((raw.WRITE, rw_payload(place, 4)) for place in places), raw.EINVAL)
    await stay_open(stream)


@attack
async def scan_by_capture(front: RawFrontend) -> None:
    """READ all that can be had for a second, over the end of the buffer too: only what the guest's
    input gave (silence) and the guest's own octets are found, and nothing beyond buffer_sz."""
    await front.connect()
    stream = front.recording
    pcm = await stream.open(7040, 880)
    await stream.start(pcm)
    got = 0
    for _ in range(2000):
        offset = random.randrange(0, 8192, 4)
        length = random.choice((4, 880, 7040 - offset, 8192 - offset))
        status = await stream.rw(offset, max(length, 0))
        inside = offset < 7040 and 0 <= length <= 7040 - offset
        require(status in (0, -raw.EAGAIN) if inside else status == -raw.EINVAL, f"{status}")
        got += length if status == 0 else 0
        if got > 7040 * 4:
            break
    require(got > 0, "nothing was captured")
    pages = pcm.memory.tobytes()
    require(
        not pages[:7040].strip(bytes([0, raw.MARK])), "captured what is neither silence nor ours"
    )
    require(pages[7040:] == bytes([raw.MARK]) * 1152, "octets beyond buffer_sz were written")
    await stay_open(stream)


@attack
async def more_than_room(front: RawFrontend) -> None:
    """WRITE far more than the buffer holds unplayed: ENOSPC, and the stream lives on."""
    stream = await opened(front, start=False)
    statuses = {await stream.rw(0, BUFFER) for _ in range(50)}
    require(statuses == {0, -raw.ENOSPC}, f"{statuses}")
    await stay_open(stream)


@attack
async def read_before_captured(front: RawFrontend) -> None:
    """READ more than is captured: EAGAIN, no waiting, and not an octet is changed."""
    stream = await opened(front, capture=True, start=False)
    require(await stream.rw(0, BUFFER) == -raw.EAGAIN, "READ of what is not captured")
    require(
        set(stream.pcms[-1].memory.tobytes()) == {raw.MARK}, "the guest's pages were written to"
    )
    await stay_open(stream)


# OPEN.


async def _bad_opens(front: RawFrontend, *changes: dict[str, int]) -> None:
    """Have an OPEN that is honest but for `changes` refused, with nothing open and with a PCM."""
    await front.connect()
    for stream in front.streams:
        pcm = stream.pcm(BUFFER)
        for again in range(2):
            honest = {"buffer_sz": BUFFER, "gref_directory": pcm.gref, "period_sz": 3840}
            await stream.all_refused(
                ((raw.OPEN, raw.open_payload(**{**honest, **change})) for change in changes),
                *(raw.EINVAL, raw.EOPNOTSUPP),
            )
            if not again:
                await stream.open()
        await stay_open(stream)


@attack
async def unknown_formats(front: RawFrontend) -> None:
    """OPEN with format codes that mean nothing: errors, and the stream lives on."""
    await _bad_opens(front, *({"pcm_format": code} for code in (25, 26, 31, 32, 63, 64, 128, 255)))


@attack
async def compressed_formats(front: RawFrontend) -> None:
    """OPEN with IMA ADPCM, MPEG and GSM, which are no PCM: errors, and the stream lives on."""
    await _bad_opens(front, *({"pcm_format": code} for code in (22, 23, 24)))


@attack
async def impossible_channels(front: RawFrontend) -> None:
    """OPEN with 0, too many and 255 channels: errors, and the stream lives on."""
    await _bad_opens(front, *({"channels": count} for count in (0, 33, 64, 255)))


@attack
async def impossible_rates(front: RawFrontend) -> None:
    """OPEN with rates from 0 to 2^32 - 1 that are not the card's: errors."""
    await _bad_opens(
        front, *({"rate": r} for r in (0, 1, 47999, 4000000000, 0x7FFFFFFF, 2**32 - 1))
    )


@attack
async def impossible_buffers(front: RawFrontend) -> None:
    """OPEN with buffers of 0 octets, of 4 GiB - 1, and not of whole frames: errors, no memory."""
    sizes = (0, 1, 2, 3, 4097, 38399, 0x7FFFFFFC, 0x80000000, 0xFFFFF000, 0xFFFFFFFC, 0xFFFFFFFF)
    await _bad_opens(front, *({"buffer_sz": size} for size in sizes))


@attack
async def impossible_periods(front: RawFrontend) -> None:
    """OPEN with periods over the buffer, not of whole frames, or of one frame: errors."""
    sizes = (1, 2, 4, 92, 3841, 38404, 0x7FFFFFFC, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF)
    await _bad_opens(front, *({"period_sz": size} for size in sizes))


@attack
async def no_period(front: RawFrontend) -> None:
    """OPEN with a period of 0, which is legal: it plays, and no event is sent."""
    await front.connect()
    stream = front.playback
    pcm = await stream.open(period=0)
    await stream.start(pcm)
    await asyncio.sleep(0.3)
    require(not stream.take_events(), "an event was sent")
    await stay_open(stream)


async def _bad_grefs(front: RawFrontend, *grefs: int) -> None:
    await front.connect()
    for stream in front.streams:
        honest = {"buffer_sz": BUFFER, "period_sz": 3840}
        await stream.all_refused(
            ((raw.OPEN, raw.open_payload(**honest, gref_directory=gref)) for gref in grefs),
            *(raw.EINVAL, raw.EACCES),
        )
        await stay_open(stream)


@attack
async def gref_never_granted(front: RawFrontend) -> None:
    """OPEN with a directory that is 0 or was never granted: errors, and the stream lives on."""
    await _bad_grefs(front, 0, 1, 7, 30000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@attack
async def gref_of_another_domain(front: RawFrontend) -> None:
    """OPEN with a directory, or a buffer, granted to another domain: errors."""
    other = await front.own_domid() + 1
    with front.hv.share(other, 1) as share:
        await _bad_grefs(front, share.grefs[0])
        stream = front.playback
        pcm = stream.pcm(BUFFER)
        pcm.build([*pcm.buffer.grefs[:3], share.grefs[0], *pcm.buffer.grefs[4:]])
        payload = raw.open_payload(buffer_sz=BUFFER, gref_directory=pcm.gref)
        await stream.refused(raw.OPEN, payload, raw.EINVAL, raw.EACCES)
        await stay_open(stream)


@attack
async def grants_ended_before_open(front: RawFrontend) -> None:
    """OPEN with a directory whose grant was ended, or that lists such pages: errors."""
    share = front.hv.share(front.backend_id, 1)
    gref = share.grefs[0]
    share.close()
    await _bad_grefs(front, gref)
    stream = front.playback
    pcm = stream.pcm(BUFFER)
    pcm.buffer.close()
    payload = raw.open_payload(buffer_sz=BUFFER, gref_directory=pcm.gref)
    await stream.refused(raw.OPEN, payload, raw.EINVAL, raw.EACCES)
    await stay_open(stream)


@attack
async def grants_ended_while_playing(front: RawFrontend) -> None:
    """The buffer's grants ended in the middle of playing: the backend's mapping stays, the stream
    lives on."""
    stream = await opened(front)
    stream.pcms[-1].close()
    for _ in range(20):
        require(await stream.rw(0, 384) in (0, -raw.ENOSPC), "WRITE")
        await asyncio.sleep(0.005)
    await stream.moves()
    await stay_open(stream)


@attack
async def cyclic_directory(front: RawFrontend) -> None:
    """OPEN with a directory whose pages lead to themselves and to each other: an answer at once
    (sndif knows how many pages there are), and the stream lives on."""
    await connect_large(front)
    for stream in front.streams:
        pcm = stream.pcm(LARGE)
        many = list(pcm.buffer.grefs)
        for ring in ([pcm.directory.grefs[0]], [pcm.directory.grefs[1], pcm.directory.grefs[0]]):
            for i, after in enumerate(ring):
                struct.pack_into("=I", pcm.directory.memory, i * PAGE, after)
            for size in (BUFFER, len(many) * PAGE):
                payload = raw.open_payload(buffer_sz=size, gref_directory=pcm.gref)
                await stream.request(raw.OPEN, payload)
        await stay_open(stream)


@attack
async def short_directory(front: RawFrontend) -> None:
    """OPEN with a directory that ends before the buffer does: an error."""
    await connect_large(front)
    for stream in front.streams:
        pcm = stream.pcm(LARGE)
        struct.pack_into("=I", pcm.directory.memory, 0, 0)
        payload = raw.open_payload(buffer_sz=LARGE, gref_directory=pcm.gref)
        await stream.refused(raw.OPEN, payload, raw.EINVAL)
        await stay_open(stream)


@attack
async def hole_in_directory(front: RawFrontend) -> None:
    """OPEN with a reference of 0 in the middle of the directory, or as its next page: errors."""
    await front.connect()
    for stream in front.streams:
        for hole in (0, 4, 9):
            pcm = stream.pcm(BUFFER)
            struct.pack_into("=I", pcm.directory.memory, 4 + 4 * hole, 0)
            payload = raw.open_payload(buffer_sz=BUFFER, gref_directory=pcm.gref)
            await stream.refused(raw.OPEN, payload, raw.EINVAL)
        await stay_open(stream)


@attack
async def one_page_a_thousand_times(front: RawFrontend) -> None:
    """OPEN with a buffer of 1024 pages that are all the same: no domain can map a page that often;
    of 50 pages it plays this guest's own octets."""
    await connect_large(front)
    stream = front.playback
    pcm = stream.pcm(LARGE)
    pcm.build(pcm.buffer.grefs[:1] * 1024)
    many, some = (
        raw.open_payload(buffer_sz=size, gref_directory=pcm.gref, period_sz=3840)
        for size in (LARGE, 50 * PAGE)
    )
    await stream.refused(raw.OPEN, many, raw.EINVAL)
    await stream.succeed(raw.OPEN, some)
    require(await stream.rw(4 * 4096 - 2000, BUFFER) == 0, "WRITE")
    await stream.trigger(raw.START)
    await stream.moves()
    await stay_open(stream)


@attack
async def buffer_is_the_ring(front: RawFrontend) -> None:
    """OPEN for capture with the ring's own page as the buffer, and READ into it: the guest breaks
    its own ring; the device is closed, or lives, and is taken back."""
    stream = await opened(front, capture=True)
    assert stream.ring_share is not None
    pcm = stream.pcm(PAGE)
    pcm.build(stream.ring_share.grefs)
    payload = raw.open_payload(buffer_sz=PAGE, gref_directory=pcm.gref, period_sz=1024)
    await stream.succeed(raw.OPEN, payload)
    await stream.trigger(raw.START)
    with suppress(raw.WrongAnswer):
        for _ in range(20):
            stream.put(raw.READ, rw_payload(0, 64))
            stream.push()
            await stream.response(0.1)
            await asyncio.sleep(0.005)
    await front.again()


@attack
async def directory_changes_during_open(front: RawFrontend) -> None:
    """The directory rewritten all the time by a thread while OPEN reads it: each OPEN gets an
    answer, and the stream lives on."""
    await connect_large(front)
    stream = front.playback
    pcm = stream.pcm(LARGE)
    honest = pcm.directory.memory.tobytes()
    rubbish = [random.Random(seed).randbytes(2 * PAGE) for seed in range(4)]

    def rewrite() -> None:
        pcm.directory.memory[:] = random.choice(rubbish)
        pcm.directory.memory[:] = honest

    payload = raw.open_payload(buffer_sz=LARGE, gref_directory=pcm.gref)
    with meanwhile(rewrite):
        for _ in range(int(30 * front.flood)):
            await stream.request(raw.OPEN, payload)
            await stream.rw(0, 4096)
    await stay_open(stream)


# The rings.


async def _bad_index(front: RawFrontend, *steps: int) -> None:
    """Have the device closed for each req_prod that is so far from the honest one."""
    for step in steps:
        for capture in (False, True):
            stream = await opened(front, capture=capture)
            stream.push(stream.req_prod + step)
            await front.is_closed()
    await front.again()


@attack
async def req_prod_too_far(front: RawFrontend) -> None:
    """req_prod jumps by more than the ring has entries: the device is closed, and taken back."""
    await _bad_index(front, 33, 34)


@attack
async def req_prod_half_way_round(front: RawFrontend) -> None:
    """req_prod jumps by 2^31: the device is closed, and taken back."""
    await _bad_index(front, 1 << 31)


@attack
async def req_prod_backwards(front: RawFrontend) -> None:
    """req_prod goes back behind requests that were answered: the device is closed."""
    await _bad_index(front, -1)


@attack
async def foreign_indices(front: RawFrontend) -> None:
    """The indices that are the backend's to write are overwritten, between requests and by a
    thread: the backend has its own, and answers every request."""
    stream = await opened(front)
    words = (raw.REQ_EVENT, raw.RSP_PROD, raw.RSP_EVENT)

    def scribble() -> None:
        for word in words:
            stream.set_word(word, random.getrandbits(32))

    for _ in range(50):
        scribble()
        stream.put(raw.HW_PARAM_QUERY, b"\0" * 56)
        stream.push()
        await raw.until(
            lambda: stream.word(raw.RSP_PROD) == stream.req_prod, "an answer to a request"
        )
    stream.rsp_cons = stream.req_prod
    with meanwhile(scribble):
        for _ in range(int(100 * front.flood)):
            stream.put(raw.WRITE, rw_payload(0, 0xFFFFFFFC))
            stream.push()
            await asyncio.sleep(0.002)
    stream.set_word(raw.RSP_EVENT, stream.req_prod + 1)
    stream.put(raw.CLOSE)
    stream.push()
    await raw.until(lambda: stream.word(raw.RSP_PROD) == stream.req_prod, "an answer to CLOSE")
    stream.rsp_cons = stream.req_prod
    await stay_open(stream)


@attack
async def ring_scribbled(front: RawFrontend) -> None:
    """The whole ring page overwritten by a thread while it plays: the device may be closed; it is
    taken back."""
    for honest_indices in (False, True):
        stream = await opened(front)
        start = raw.ENTRIES if honest_indices else 0
        source = random.Random(5)

        def scribble(
            stream: RawStream = stream, start: int = start, source: random.Random = source
        ) -> None:
            stream.ring[start:] = source.randbytes(PAGE - start)

        with meanwhile(scribble):
            for count in range(int(100 * front.flood)):
                stream.push(count * 16 + stream.req_prod)
                await asyncio.sleep(0.002)
        await front.set_state(raw.INITIALISING)
    await front.again()


@attack
async def requests_change(front: RawFrontend) -> None:
    """The length of requests flips between small and huge after they were pushed: each answer is
    for one of the two, never a mixture; the stream lives on."""
    stream = await opened(front)
    lengths = (16, 0x7FFFFFF0)

    def flip() -> None:
        for length in lengths:
            for entry in range(raw.RING_MOST):
                struct.pack_into("=II", stream.ring, raw.ENTRIES + entry * 64 + 8, 0, length)

    with meanwhile(flip):
        end = time.monotonic() + front.flood
        while time.monotonic() < end:
            for _ in range(8):
                stream.put(raw.WRITE, rw_payload(0, lengths[0]))
            stream.push()
            for _ in range(8):
                await raw.until(
                    lambda: stream.word(raw.RSP_PROD) != stream.rsp_cons, "an answer to a WRITE"
                )
                stream.rsp_cons += 1
    await stay_open(stream)


@attack
async def in_cons_impossible(front: RawFrontend) -> None:
    """in_cons runs ahead of in_prod, or lies: the device is closed, and taken back."""
    for value in (1 << 31, 5000, 0xFFFFFF00):
        stream = await opened(front)
        raw.store(stream.events, raw.IN_CONS, value)
        await front.is_closed()
    await front.again()


@attack
async def events_never_consumed(front: RawFrontend) -> None:
    """Events are left in the page until it is full, and over: they are merged, none is skipped, and
    CLOSE is answered all the same."""
    await front.connect()
    stream = front.recording
    pcm = await stream.open(3840, 192)
    await stream.start(pcm)
    await asyncio.sleep(0.4)
    unread = raw.load(stream.events, raw.IN_PROD) - stream.in_cons
    require(unread == raw.EVENTS_MOST, f"{unread} events in the page, expected 63")
    await stream.succeed(raw.CLOSE)
    require(len(stream.take_events()) == raw.EVENTS_MOST, "events were lost")
    await stay_open(stream)


@attack
async def event_page_scribbled(front: RawFrontend) -> None:
    """The event page's entries and in_prod overwritten all the time: the backend does not read
    them; CLOSE is answered, and the device taken back."""
    stream = await opened(front)
    source = random.Random(6)

    def scribble() -> None:
        stream.events[raw.IN_PROD :] = source.randbytes(PAGE - raw.IN_PROD)

    with meanwhile(scribble):
        for _ in range(20):
            await stream.rw(0, 3840)
            await asyncio.sleep(0.01)
        await stream.succeed(raw.CLOSE)
    require(await front.backend_state() == raw.CONNECTED, "the device is not connected")
    await front.again()


# Too much.


@attack
async def event_storm(front: RawFrontend) -> None:
    """100000 events without a request, on both channels: this guest is made to wait, and is
    answered afterwards."""
    stream = await opened(front)
    assert stream.channels is not None
    for count in range(int(100000 * front.flood)):
        stream.channels.notify(stream.event_port if count % 2 else stream.port)
        if count % 1000 == 0:
            await asyncio.sleep(0)
    await stay_open(stream)


@attack
async def request_flood(front: RawFrontend) -> None:
    """Requests as fast as they can be made for 2 s: all answered, at a bounded rate."""
    stream = await opened(front)
    asked = stream.req_prod
    begin = time.monotonic()
    while time.monotonic() < begin + 2 * front.flood:
        room = raw.RING_MOST - (stream.req_prod - stream.rsp_cons)
        for n in range(room):
            stream.put(raw.WRITE if n % 2 else raw.HW_PARAM_QUERY, rw_payload(0, BUFFER * 2))
        stream.push()
        stream.rsp_cons = stream.word(raw.RSP_PROD)
        await asyncio.sleep(0)
    rate = (stream.rsp_cons - asked) / (time.monotonic() - begin)
    require(rate < 15000, f"{rate:.0f} requests a second were answered")
    await raw.until(lambda: stream.word(raw.RSP_PROD) == stream.req_prod, "all answers")
    stream.rsp_cons = stream.req_prod
    await stay_open(stream)


@attack
async def open_close_flood(front: RawFrontend) -> None:
    """OPEN, START, CLOSE as fast as they are answered for a second, on all streams at once."""
    await front.connect()
    pcms = [stream.pcm(BUFFER) for stream in front.streams]
    end = time.monotonic() + front.flood

    async def flood(stream: RawStream, pcm: raw.Pcm) -> None:
        payload = raw.open_payload(buffer_sz=BUFFER, gref_directory=pcm.gref, period_sz=3840)
        while time.monotonic() < end:
            await stream.succeed(raw.OPEN, payload)
            await stream.trigger(raw.START)
            await stream.succeed(raw.CLOSE)

    await asyncio.gather(*(flood(s, p) for s, p in zip(front.streams, pcms, strict=True)))
    for stream in front.streams:
        await stay_open(stream)


@attack
async def trigger_flood(front: RawFrontend) -> None:
    """START, PAUSE, RESUME, STOP as fast as they are answered for a second: the position never
    goes back."""
    stream = await opened(front, start=False)
    end = time.monotonic() + front.flood
    while time.monotonic() < end:
        for kind in (raw.START, raw.PAUSE, raw.RESUME, raw.STOP):
            await stream.trigger(kind)
        stream.take_events()
    require(stream.positions == sorted(stream.positions), "the position went back")
    await stay_open(stream)


async def _add_streams(front: RawFrontend, kinds: str) -> None:
    """Make streams of these kinds in the guest's own directory, eight to a PCM."""
    await asyncio.gather(
        *(front.add(f"{1 + n // 8}/{n % 8}", kind) for n, kind in enumerate(kinds))
    )


@attack
async def many_streams(front: RawFrontend) -> None:
    """65 streams, made by the guest in its own directory; then 64 of them, all played at once: the
    65th gets the card refused, the 64 are served."""
    await _add_streams(front, "cp" * ((64 - len(front.streams)) // 2))
    await front.add("20/0", "p")
    async with anew(front):
        pass
    await front.store.rm(f"{front.path}/20")
    front.streams.pop().free()
    await front.set_state(raw.INITIALISING)
    await front.backend_reaches(raw.INIT_WAIT)
    await front.conclude()

    async def use(stream: RawStream) -> None:
        await stream.start(await stream.open())
        await stream.moves()

    await asyncio.gather(*(use(stream) for stream in front.streams))


async def _allow_heavy(front: RawFrontend, buffer_sz: int) -> None:
    """Change the configuration so that the heaviest PCM is allowed."""
    settings = (
        ("channels-max", "32"),
        ("sample-rates", "768000"),
        ("sample-formats", "float64_le"),
        ("buffer-size", str(buffer_sz)),
    )
    await asyncio.gather(
        *(
            front.store.write(f"{stream.path}/{key}", value)
            for stream in front.streams
            for key, value in settings
        )
    )


@attack
async def heavy_streams(front: RawFrontend) -> None:
    """32 capture streams of 32 channels of 64 bits at 768 kHz (6 GB/s in all), with periods of
    0.5 ms: the guest gets what its share of the engine allows, and nobody else waits."""
    await _add_streams(front, "c" * 31)
    size = 256 * 384 * 20
    await _allow_heavy(front, size)
    await front.negotiate()
    statuses = set()
    pcm = front.recording.pcm(size)  # one for all

    async def use(stream: RawStream) -> None:
        payload = raw.open_payload(
            rate=768000,
            pcm_format=16,
            channels=32,
            buffer_sz=size,
            gref_directory=pcm.gref,
            period_sz=256 * 384,
        )
        status = (await stream.request(raw.OPEN, payload)).status
        statuses.add(status)
        if status == 0:
            await stream.request(raw.TRIGGER, bytes([raw.START]))

    await asyncio.gather(*(use(stream) for stream in front.streams if stream.capture))
    require(0 in statuses, f"no stream could be opened: {statuses}")
    await asyncio.sleep(front.flood)
    require(await front.backend_state() == raw.CONNECTED, "the device is not connected")


@attack
async def memory_hog(front: RawFrontend) -> None:
    """36 playback streams with the largest buffers and periods, of 32 channels of 64 bits at
    768 kHz, all filled and started: OPEN succeeds until the guest has had its share of memory, then
    it is refused; CLOSE gives it back."""
    await _add_streams(front, "p" * 35)
    await _allow_heavy(front, LARGE)
    await front.negotiate()
    pcm = front.playback.pcm(LARGE)  # one for all: a guest that spends little for them
    payload = raw.open_payload(
        rate=768000,
        pcm_format=16,
        channels=32,
        buffer_sz=LARGE,
        gref_directory=pcm.gref,
        period_sz=LARGE,
    )
    streams = [stream for stream in front.streams if not stream.capture]
    for again in range(2):
        opened_now = []
        for stream in streams:
            answer = await stream.request(raw.OPEN, payload)
            require(answer.status in (0, -raw.ENOMEM), f"{answer}")
            if answer.status == 0:
                opened_now.append(stream)
        require(0 < len(opened_now) < 32, f"{len(opened_now)} of {len(streams)} were opened")
        for stream in opened_now:
            if again:
                await stream.rw(0, LARGE)
                await stream.trigger(raw.START)
            else:
                await stream.succeed(raw.CLOSE)


@attack
async def impossible_queries(front: RawFrontend) -> None:
    """HW_PARAM_QUERY with ranges that nothing lies in: EINVAL each."""
    await front.connect()
    every = (2**64 - 1, 0, 2**32 - 1, 0, 2**32 - 1, 0, 2**32 - 1, 0, 2**32 - 1)
    asked = []
    for place, values in (
        (0, (0,)),
        (0, (1 << 63,)),
        (1, (9, 8)),
        (1, (800000, 2**32 - 1)),
        (3, (3, 2)),
        (3, (200, 255)),
        (5, (2**32 - 1, 2**32 - 1)),
        (5, (0, 0)),
        (7, (0, 0)),
        (7, (2**31, 2**32 - 1)),
        (7, (500, 499)),
    ):
        changed = list(every)
        changed[place : place + len(values)] = values
        asked.append((raw.HW_PARAM_QUERY, struct.pack("=Q8I", *changed)))
    for stream in front.streams:
        await stream.all_refused(asked, raw.EINVAL)
        await stay_open(stream)


@attack
async def random_queries(front: RawFrontend) -> None:
    """HW_PARAM_QUERY with random ranges: each answer lies within what was asked, and asking for the
    answer gives the answer."""
    await front.connect()
    stream = front.playback
    dice = random.Random(7)

    def random_ranges() -> tuple[int, ...]:
        ranges = [dice.getrandbits(64) | dice.getrandbits(25)]
        for most in (1000000, 40, 2**21, 2**20):
            low = dice.choice((0, 1, dice.randrange(most)))
            ranges += [low, dice.choice((low, 2**32 - 1, dice.randrange(most), low + 4000))]
        return tuple(ranges)

    async def query(of: list[tuple[int, ...]]) -> list[raw.Response]:
        return await stream.requests(
            [(raw.HW_PARAM_QUERY, struct.pack("=Q8I", *ranges)) for ranges in of]
        )

    every = [random_ranges() for _ in range(400)]
    narrowed = []
    for asked, answer in zip(every, await query(every), strict=True):
        if answer.status:
            require(answer.status == -raw.EINVAL, f"{answer}")
            continue
        got = answer.ranges
        narrowed.append(got)
        require(got[0] and not got[0] & ~asked[0], f"formats {got[0]:x} of {asked[0]:x}")
        for i in range(1, 9, 2):
            require(
                asked[i] <= got[i] <= got[i + 1] <= asked[i + 1],
                f"the answer {got} does not lie within {asked}",
            )
    require(len(narrowed) > 20, f"only {len(narrowed)} of 400 were answered")
    for got, same in zip(narrowed, await query(narrowed), strict=True):
        require(same.status == 0 and same.ranges == got, f"{got} was narrowed to {same.ranges}")
    await stay_open(stream)


# The store.


@attack
async def garbage_references(front: RawFrontend) -> None:
    """ring-ref that is no number, or one that is not granted: refused, and taken back."""
    for value in ("abc", "-1", "4294967296", "", "9" * 1500, "0", "\u0664", "30000"):
        async with anew(front):
            await front.store.write(f"{front.playback.path}/ring-ref", value)
    with suppress(XenAudioError):
        await front.store.write(f"{front.playback.path}/ring-ref", "9" * 4000)
    await front.again()


@attack
async def missing_nodes(front: RawFrontend) -> None:
    """Each of a stream's nodes missing, so half of the event nodes too: refused, and taken back."""
    for key in ("ring-ref", "event-channel", "evt-ring-ref", "evt-event-channel", "type"):
        async with anew(front):
            await front.store.rm(f"{front.playback.path}/{key}")
        await front.store.write(f"{front.playback.path}/type", "p")
    await front.again()


@attack
async def version_1(front: RawFrontend) -> None:
    """A frontend of protocol version 1, without event nodes: it is served, without events."""
    await front.prepare()
    for stream in front.streams:
        for key in ("evt-ring-ref", "evt-event-channel"):
            await front.store.rm(f"{stream.path}/{key}")
    await front.set_state(raw.INITIALISED)
    await front.backend_reaches(raw.CONNECTED)
    await front.set_state(raw.CONNECTED)
    stream = front.playback
    for _ in range(2):
        await stream.start(await stream.open())
        await asyncio.sleep(0.1)
        await stream.succeed(raw.CLOSE)
    require(not any(stream.events), "the event page, which was not published, was written to")


@attack
async def one_ring_for_two_streams(front: RawFrontend) -> None:
    """Two streams on one ring page: refused, or served as far as one page can; taken back."""
    await front.prepare()
    await front.publish(front.recording, {"ring-ref": front.playback.nodes()["ring-ref"]})
    await front.set_state(raw.INITIALISED)
    if await front.backend_reaches(raw.CONNECTED, raw.CLOSING, raw.CLOSED) == raw.CONNECTED:
        for _ in range(20):
            front.playback.put(raw.HW_PARAM_QUERY, b"\xff" * 56)
            front.playback.push()
            front.recording.notify()
            await asyncio.sleep(0.005)
    await front.again()


@attack
async def event_page_is_the_ring(front: RawFrontend) -> None:
    """The ring's page published as the event page too: whatever comes of it, taken back."""
    await front.prepare()
    stream = front.playback
    await front.publish(stream, {"evt-ring-ref": stream.nodes()["ring-ref"]})
    await front.set_state(raw.INITIALISED)
    if await front.backend_reaches(raw.CONNECTED, raw.CLOSING, raw.CLOSED) == raw.CONNECTED:
        with suppress(raw.WrongAnswer):
            await stream.start(await stream.open())
            await asyncio.sleep(0.3)
    await front.again()


@attack
async def foreign_event_channels(front: RawFrontend) -> None:
    """event-channel that is another domain's, or nobody's, or bound already: refused, and taken
    back."""
    other = await front.own_domid() + 1
    with front.hv.event_channel() as channels:
        foreign = channels.alloc_unbound(other)
        for port in (str(foreign), "1022", "4294967295", "0"):
            async with anew(front):
                await front.publish(front.playback, {"event-channel": port})
    for key in ("event-channel", "evt-event-channel"):
        async with anew(front):
            await front.publish(front.recording, {key: front.playback.nodes()["event-channel"]})
    await front.again()


@attack
async def unknown_types(front: RawFrontend) -> None:
    """type that is neither p nor c: refused, and taken back."""
    path = f"{front.playback.path}/type"
    for value in ("x", "", "pc", "p "):
        async with anew(front):
            await front.store.write(path, value)
    await front.store.write(path, "p")
    await front.again()


@attack
async def type_changes_sides(front: RawFrontend) -> None:
    """A playback stream that the guest makes a capture stream: it is one then; the neighbour's
    output and input are not touched."""
    stream = front.playback
    await front.store.write(f"{stream.path}/type", "c")
    stream.capture = True
    await front.negotiate()
    await stay_open(stream)


@attack
async def ten_thousand_children(front: RawFrontend) -> None:
    """As many nodes in its directory as the store lets it make: refused, or served, soon; taken
    back when they are gone."""
    await front.prepare()
    made = 0
    with suppress(XenAudioError):
        while made < 10000:
            some = range(made, made + 100)
            await asyncio.gather(
                *(front.store.write(f"{front.path}/more/{n % 90}/{n}", "x") for n in some)
            )
            made += len(some)
    await front.set_state(raw.INITIALISED)
    await front.backend_reaches(raw.CONNECTED, raw.CLOSING, raw.CLOSED)
    await front.store.rm(f"{front.path}/more")
    await front.again()


@attack
async def absurd_settings(front: RawFrontend) -> None:
    """Rates, formats, channels and buffer sizes that mean nothing: refused, and taken back."""
    path = front.playback.path
    for key, value in (
        ("sample-rates", "0"),
        ("sample-rates", "99999999999999999999"),
        ("sample-rates", ","),
        ("sample-rates", "48000;44100"),
        ("sample-rates", ",".join(map(str, range(8000, 8300)))),
        ("sample-formats", "mpeg"),
        ("channels-max", "99999"),
        ("channels-max", "0"),
        ("channels-min", "9"),
        ("buffer-size", "0"),
    ):
        async with anew(front):
            await front.store.write(f"{path}/{key}", value)
        await front.store.rm(f"{path}/{key}")
    await front.again()


@attack
async def garbage_states(front: RawFrontend) -> None:
    """State written to what is no state: the device waits, or closes, and is taken back."""
    await front.connect()
    for value in ("abc", "", "99", "-3", "4.0", "\u0663", "7", "8", "0", "3" * 1500, "4\n"):
        await front.set_state(value)
        await asyncio.sleep(0.02)
    await front.again()


@attack
async def states_flap(front: RawFrontend) -> None:
    """The handshake over and over, 1, 3, 1, 3, as fast as the store takes it: at most the allowed
    number of handshakes is done, and the device is taken back."""
    await front.prepare()
    for _ in range(int(300 * front.flood)):
        await front.set_state(raw.INITIALISED)
        await front.set_state(raw.INITIALISING)
    for _ in range(4):
        await front.set_state(raw.INITIALISED)
        await asyncio.sleep(0.25)
        await front.set_state(raw.INITIALISING)
        await asyncio.sleep(0.01)
    for _ in range(int(300 * front.flood)):
        for state in (raw.CLOSING, raw.CLOSED, raw.INITIALISING, raw.CONNECTED):
            await front.set_state(state)
    await front.again()


@attack
async def state_storm(front: RawFrontend) -> None:
    """Its state written as fast as the store takes it for a second, while connected: the backend
    looks at it now and then only, and the device is taken back."""
    await front.connect()
    end = time.monotonic() + front.flood
    while time.monotonic() < end:
        await asyncio.gather(*(front.set_state(raw.CONNECTED) for _ in range(50)))
    await front.again()


@attack
async def nodes_removed(front: RawFrontend) -> None:
    """The frontend's directory removed while playing: the device is closed."""
    stream = await opened(front)
    try:
        await front.store.rm(front.path)
    except XenAudioError:
        return  # a store that does not let it
    await front.is_closed()
    with suppress(XenAudioError):
        await stream.rw(0, 3840) if await front.backend_state() == raw.CONNECTED else None


@attack
async def wrong_backend_named(front: RawFrontend) -> None:
    """`backend` and `backend-id` rewritten to another guest's: the backend never reads them."""
    other = await front.own_domid() + 1
    await front.store.write(f"{front.path}/backend", f"/local/domain/0/backend/vsnd/{other}/0")
    await front.store.write(f"{front.path}/backend-id", str(other))
    await front.again()


@attack
async def backend_nodes_written(front: RawFrontend) -> None:
    """The backend's own nodes, and another domain's, are the store's to protect: EACCES, and what
    is served stays so."""
    await front.connect()
    for path in (
        f"{front.backend}/state",
        f"{front.backend}/online",
        f"{front.backend}/frontend",
        f"{front.backend}/more",
        "/local/domain/0/backend/vsnd/9999/0/state",
    ):
        try:
            await front.store.write(path, "5")
        except XenAudioError as error:
            require(error.errno == errno.EACCES, f"{error}")
        else:
            raise raw.WrongAnswer(f"{path} was written")
    for stream in front.streams:
        await stay_open(stream)


# The guest dies.


@attack
async def dies_in_handshake(front: RawFrontend) -> None:
    """Killed just when it has shown state 3: nothing is left of it."""
    await front.prepare()
    await front.last_moment()
    await front.set_state(raw.INITIALISED)


@attack
async def dies_connecting(front: RawFrontend) -> None:
    """Killed while its 32 streams are being connected: nothing is left of it."""
    await _add_streams(front, "p" * 30)
    await front.prepare()
    await asyncio.sleep(0.2)
    await front.last_moment()
    await front.set_state(raw.INITIALISED)
    await asyncio.sleep(0.02)


@attack
async def dies_in_open(front: RawFrontend) -> None:
    """Killed just when it has pushed OPEN with 1024 pages: nothing is left of it."""
    await connect_large(front)
    for stream in front.streams:
        pcm = stream.pcm(LARGE)
        stream.put(raw.OPEN, raw.open_payload(buffer_sz=LARGE, gref_directory=pcm.gref))
    await front.last_moment()
    for stream in front.streams:
        stream.push()


@attack
async def dies_between_requests(front: RawFrontend) -> None:
    """Killed while it plays and records, with requests in the ring: nothing is left of it."""
    await front.connect()
    for stream in front.streams:
        await stream.start(await stream.open())
        for _ in range(raw.RING_MOST):
            stream.put(raw.READ if stream.capture else raw.WRITE, rw_payload(0, 960))
    await front.last_moment()
    for stream in front.streams:
        stream.push()


@attack
async def dies_in_close(front: RawFrontend) -> None:
    """Killed just when it has pushed CLOSE, with events unread: nothing is left of it."""
    await front.connect()
    for stream in front.streams:
        await stream.start(await stream.open(3840, 384))
    await asyncio.sleep(0.1)
    await front.last_moment()
    for stream in front.streams:
        stream.put(raw.CLOSE)
        stream.push()
