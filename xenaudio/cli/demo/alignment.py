# SPDX-License-Identifier: LGPL-2.1-or-later
"""What became of the frames that were sent: compares two sequences of frames.

Both are octets. Equal stretches are found in order; what lies between them was lost (only in the
sent), or is extra: repeated (frames that were sent within the last second) or silence, or altered.
"""

from __future__ import annotations

from dataclasses import dataclass

ANCHOR_FRAMES = 32  # that must agree before two places are taken to be the same


@dataclass(frozen=True)
class Alignment:
    """Counts of frames."""

    sent: int
    received: int
    lost: int
    repeated: int
    silent: int
    altered: int

    @property
    def bit_exact(self) -> bool:
        """Whether each frame arrived once, in order, unaltered, and nothing else did."""
        return not (self.lost or self.repeated or self.silent or self.altered)


def _agree(a: bytes, i: int, b: bytes, j: int, frame: int) -> int:
    """Return how many frames agree from a[i] and b[j] on."""
    most = min(len(a) - i, len(b) - j)
    step, done = 1 << 16, 0
    while done < most and a[i + done : i + done + step] == b[j + done : j + done + step]:
        done += step
    done = min(done, most)
    while done < most and a[i + done : i + done + frame] == b[j + done : j + done + frame]:
        done += frame
    return done // frame


def _find(data: bytes, what: bytes, start: int, frame: int) -> int:
    """Return where `what` is in `data`, at a whole frame from `start` on; -1 when nowhere."""
    at = data.find(what, start)
    while at >= 0 and at % frame:
        at = data.find(what, at + 1)
    return at


def align(sent: bytes, received: bytes, frame: int, rate: int) -> Alignment:
    """Compare; `frame` is the octets of a frame, `rate` frames a second."""
    i = j = 0  # octets
    lost = repeated = silent = altered = 0
    anchor = ANCHOR_FRAMES * frame
    while j < len(received):
        same = _agree(sent, i, received, j, frame) * frame
        i, j = i + same, j + same
        if j >= len(received):
            break
        if i < len(sent):
            ahead = received[j : j + anchor]
            onward = _find(sent, ahead, i, frame) if len(ahead) == anchor and any(ahead) else -1
            if onward >= 0:
                lost += (onward - i) // frame
                i = onward
                continue
        here = received[j : j + frame]
        window = sent[max(0, i - rate * frame) : i]
        if not any(here):
            silent += 1
        elif _find(window, received[j : j + anchor], 0, frame) >= 0:
            repeated += 1
        else:
            altered += 1
        j += frame
    lost += (len(sent) - i) // frame
    # An altered frame is in the place of one that was sent.
    lost -= min(lost, altered)
    return Alignment(len(sent) // frame, len(received) // frame, lost, repeated, silent, altered)
