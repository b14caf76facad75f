# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one guest may have of cards and streams, over all of its cards."""

from __future__ import annotations

import pytest

from xenaudio.backend.limits import GuestShare, LimitError, Limits


def test_cards_are_counted_while_they_are_connected() -> None:
    share, limits = GuestShare(), Limits(cards=2)
    share.take("a", 1, limits)
    share.take("b", 1, limits)
    with pytest.raises(LimitError, match="has 2 cards connected, as many as it may: raise `cards`"):
        share.take("c", 1, limits)
    share.take("b", 1, limits)  # again
    share.give_back("a")
    share.take("c", 1, limits)


def test_streams_are_counted_over_all_cards() -> None:
    share, limits = GuestShare(), Limits(streams=4)
    share.take("a", 3, limits)
    with pytest.raises(LimitError, match="would have 5 streams, and may have 4: raise `streams`"):
        share.take("b", 2, limits)
    share.take("b", 1, limits)
    share.take("a", 3, limits)
    share.give_back("a")
    share.give_back("a")
    share.take("b", 4, limits)


def test_a_guest_that_may_have_none_has_none() -> None:
    with pytest.raises(LimitError):
        GuestShare().take("a", 1, Limits(cards=0))
    with pytest.raises(LimitError):
        GuestShare().take("a", 1, Limits(streams=0))


def test_what_is_adopted_counts_and_is_not_refused() -> None:
    share, limits = GuestShare(), Limits(cards=1)
    share.take("a", 200, None)
    share.take("b", 1, None)
    with pytest.raises(LimitError):
        share.take("c", 1, limits)
