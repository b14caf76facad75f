# SPDX-License-Identifier: LGPL-2.1-or-later
"""What became of the frames that were sent: compares two sequences of frames.

Both are octets. Stretches that are equal are found in order. What lies between two of them was lost
(only in the sent), or is extra: repeated (it was sent within the last second), silence, or altered
(not as anything that was sent; an altered frame stands for one that is not lost). The time it takes
grows with the length, however much differs.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass

BLOCK = 16  # frames that are looked up at once: an equal stretch of twice as many is always found
IN_PLACE = 8  # frames in their own place that end what was altered


@dataclass(frozen=True)
class Alignment:
    """Counts of frames."""

    sent: int
    received: int
    lost: int
    repeated: int
    silent: int
    altered: int
    bit_exact: bool
    """Whether each frame arrived once, in order, unaltered, and nothing else did."""


def _agree(same: Callable[[int, int], bool], most: int) -> int:
    """Return for how many octets, at most `most`, two sequences agree.

    `same(begin, end)` says whether they do in a part.
    """
    done, step, growing = 0, 256, True
    while step and done < most:
        end = min(done + step, most)
        if same(done, end):
            done = end
        else:
            growing = False
        step = step * 2 if growing else step // 2
    return done


class _Comparison:
    """Two sequences, with what is counted. Places and lengths are in frames."""

    def __init__(self, sent: bytes, received: bytes, frame: int, rate: int, silence: bytes) -> None:
        self._sent = sent
        self._received = received
        self._frame = frame
        self._rate = rate
        self._silence = silence
        self._sent_end = len(sent) // frame
        self._received_end = len(received) // frame
        self._index: dict[bytes, list[int]] = {}
        self.lost = self.repeated = self.silent = self.altered = 0

    def _s(self, begin: int, end: int) -> bytes:
        return self._sent[begin * self._frame : end * self._frame]

    def _r(self, begin: int, end: int) -> bytes:
        return self._received[begin * self._frame : end * self._frame]

    def _onward(self, i: int, j: int) -> int:
        """Return how many frames agree from sent[i] and received[j] on."""
        a, b, i, j = self._sent, self._received, i * self._frame, j * self._frame
        most = min(self._sent_end * self._frame - i, self._received_end * self._frame - j)
        return _agree(lambda x, y: a[i + x : i + y] == b[j + x : j + y], most) // self._frame

    def _backward(self, i: int, j: int, most: int) -> int:
        """Return how many frames, at most `most`, agree before sent[i] and received[j]."""
        a, b, i, j = self._sent, self._received, i * self._frame, j * self._frame
        most *= self._frame
        return _agree(lambda x, y: a[i - y : i - x] == b[j - y : j - x], most) // self._frame

    def run(self) -> None:
        """Compare."""
        i = j = self._onward(0, 0)
        ends = self._sent_end, self._received_end
        self._leave_tail(i, j)
        if j < self._received_end:
            self._make_index(i)
        while i < self._sent_end and j < self._received_end:
            to_i, to_j = self._resume(i, j)
            if (to_i, to_j) == (self._sent_end, self._received_end):
                break
            self._count(i, to_i, j, to_j)
            run = self._onward(to_i, to_j)
            i, j = to_i + run, to_j + run
        # What is between may as well be the beginning of the tail: then it was repeated in it.
        self._sent_end, self._received_end = ends
        run = self._onward(i, j)
        i, j = i + run, j + run
        self._leave_tail(i, j)
        self._count(i, self._sent_end, j, self._received_end)

    def _leave_tail(self, i: int, j: int) -> None:
        """Leave out what is equal at the end, from sent[i] and received[j] on."""
        most = min(self._sent_end - i, self._received_end - j)
        tail = self._backward(self._sent_end, self._received_end, most)
        self._sent_end -= tail
        self._received_end -= tail

    def _make_index(self, start: int) -> None:
        for at in range(max(0, start - self._rate), self._sent_end - BLOCK + 1, BLOCK):
            self._index.setdefault(self._s(at, at + BLOCK), []).append(at)

    def _resume(self, i: int, j: int) -> tuple[int, int]:
        """Return from where on the two agree again, after they did not at sent[i], received[j].

        That is where the fewest frames are skipped; the ends when they do not agree again.
        """
        best = (self._sent_end, self._received_end)
        best_rank = (max(self._sent_end - i, self._received_end - j), 0)
        silence = self._silence * BLOCK
        quiet = 0  # blocks of silence in a row
        seen: dict[int, int] = {}  # how far ahead -> the end in `received` of the stretch found

        def consider(to_i: int, to_j: int) -> None:
            nonlocal best, best_rank
            skipped = max(to_i - i, to_j - j)
            if skipped > best_rank[0]:
                return
            run = self._onward(to_i, to_j)
            seen[to_i - to_j] = to_j + run
            # A stretch of silence alone is like any other one.
            whole = to_i + run == self._sent_end or to_j + run == self._received_end
            silent = self._r(to_j, to_j + run) == self._silence * run
            if (whole or not silent) and (skipped, -run) < best_rank:
                best, best_rank = (to_i, to_j), (skipped, -run)

        at = j
        while at < self._received_end and at - j - 2 * BLOCK <= best_rank[0]:
            beside = i + at - j
            block = self._r(at, at + BLOCK)
            start = block[: IN_PLACE * self._frame]
            if (
                seen.get(i - j, 0) <= at
                and self._s(beside, beside + IN_PLACE) == start
                and beside + IN_PLACE <= self._sent_end
            ):
                consider(beside, at)
            places = self._index.get(block)
            # In a long silence each place is like the one before.
            quiet = quiet + 1 if block == silence else 0
            if places and quiet <= BLOCK and at + BLOCK <= self._received_end:
                k = bisect.bisect_left(places, i)
                if k < len(places):
                    ahead = places[k] - at
                    if abs(ahead - (i - j)) <= best_rank[0] and seen.get(ahead, 0) <= at:
                        back = self._backward(places[k], at, min(places[k] - i, at - j))
                        consider(places[k] - back, at - back)
            at += 1
        return best

    def _count(self, i: int, to_i: int, j: int, to_j: int) -> None:
        """Count what lies between two equal stretches."""
        sent, received = to_i - i, to_j - j
        kept = altered = 0
        extra = self._r(j, to_j)
        last = self._s(i - 1, i) if i else None
        at = j
        if extra == self._silence * received:
            self.silent += received
            at = to_j
        elif received > sent and self._find(self._s(max(0, i - self._rate), i), extra) >= 0:
            self.repeated += received
            at = to_j
        while at < to_j:
            begin, end = self._next_recent(i, at, to_j)
            for k in range(at, begin):
                here = self._r(k, k + 1)
                if sent == received and here == self._s(i + k - j, i + k - j + 1):
                    kept += 1
                elif here == self._silence:
                    self.silent += 1
                elif sent != received and here == last:
                    self.repeated += 1
                else:
                    altered += 1
            self.repeated += end - begin
            at = end
        self.altered += altered
        self.lost += max(0, sent - kept - altered)

    def _next_recent(self, i: int, j: int, to_j: int) -> tuple[int, int]:
        """Return the next of received[j] to received[to_j] that was sent in the second before i.

        Begin and end; both are to_j when there is none.
        """
        oldest = max(0, i - self._rate)
        for at in range(j, to_j - BLOCK + 1):
            block = self._r(at, at + BLOCK)
            places = self._index.get(block)
            # Silence is not looked for: it is everywhere.
            if places and block != self._silence * BLOCK:
                place = places[bisect.bisect_left(places, i) - 1]
                if oldest <= place < i:
                    back = self._backward(place, at, min(at - j, place - oldest))
                    onward = min(self._onward(place, at), i - place, to_j - at)
                    return at - back, at + onward
        return to_j, to_j

    def _find(self, data: bytes, what: bytes) -> int:
        at = data.find(what)
        while at >= 0 and at % self._frame:
            at = data.find(what, at + 1)
        return at


def align(
    sent: bytes, received: bytes, frame: int, rate: int, silence: bytes | None = None
) -> Alignment:
    """Compare whole frames of `frame` octets; `rate` is frames a second.

    `silence` is a silent frame (None: zeros).
    """
    comparison = _Comparison(sent, received, frame, rate, silence or bytes(frame))
    comparison.run()
    return Alignment(
        sent=len(sent) // frame,
        received=len(received) // frame,
        lost=comparison.lost,
        repeated=comparison.repeated,
        silent=comparison.silent,
        altered=comparison.altered,
        bit_exact=sent == received,
    )
