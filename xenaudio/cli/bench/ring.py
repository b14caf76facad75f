# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio bench ring`: the request ring beside what it is made of, in one run."""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from xenaudio.core.errors import check
from xenaudio.core.ffi import ffi, lib

BLOCK = 500  # round trips: what xa_bench_round_trips alternates in
CHUNK_OCTETS = 960  # 5 ms of 48 kHz s16 stereo
COPY_ROUNDS = 9


def add_parser(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the measurement."""
    ring = kinds.add_parser(
        "ring",
        help="round trip and copying through the request ring",
        description="Measure the request ring: a request and its response between two processes,"
        " beside a bare eventfd ping-pong; and copying through the ring, beside memcpy.",
    )
    ring.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    ring.add_argument(
        "--round-trips",
        type=_count,
        default=20000,
        metavar="N",
        help=f"round trips of each kind, rounded up to a multiple of {BLOCK} (default: 20000)",
    )
    ring.set_defaults(run=run)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 10_000_000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to 10000000")
    return -(-int(text) // BLOCK) * BLOCK


def _quantiles(nanoseconds: Any) -> dict[str, float]:
    ordered = sorted(nanoseconds)
    return {
        name: round(ordered[int(share * len(ordered))] / 1000, 3)
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def measure_ring(round_trips: int) -> dict[str, Any]:
    """Measure; microseconds and octets a second. The ratios are ring to baseline."""
    ring_ns = ffi.new("uint32_t[]", round_trips)
    baseline_ns = ffi.new("uint32_t[]", round_trips)
    check(lib.xa_bench_round_trips(round_trips, ring_ns, baseline_ns), "measure round trips")
    round_trip, baseline = _quantiles(ring_ns), _quantiles(baseline_ns)
    seconds = ffi.new("double[2]")
    chunks = 100_000
    rates: list[tuple[float, float]] = []
    for _ in range(COPY_ROUNDS):
        check(lib.xa_bench_copy(CHUNK_OCTETS, chunks, seconds, seconds + 1), "measure copying")
        rates.append((CHUNK_OCTETS * chunks / seconds[0], CHUNK_OCTETS * chunks / seconds[1]))
    copy, memcpy = (statistics.median(rate[i] for rate in rates) for i in (0, 1))
    return {
        "round_trip_us": round_trip,
        "baseline_us": baseline,
        "ratio_p50": round(round_trip["p50"] / baseline["p50"], 3),
        "copy_gb_per_s": round(copy / 1e9, 3),
        "memcpy_gb_per_s": round(memcpy / 1e9, 3),
        "copy_ratio": round(copy / memcpy, 3),
    }


def run(args: argparse.Namespace) -> int:
    """Run `bench ring`."""
    found = measure_ring(args.round_trips)
    if args.json:
        print(json.dumps(found))
        return 0
    ring, bare = found["round_trip_us"], found["baseline_us"]
    print(f"""\
{args.round_trips} round trips of each kind, two processes; chunks of {CHUNK_OCTETS} octets
                          ring       baseline   ratio
round trip p50     {ring["p50"]:8.2f} us    {bare["p50"]:8.2f} us  {found["ratio_p50"]:6.2f}
round trip p99     {ring["p99"]:8.2f} us    {bare["p99"]:8.2f} us  {ring["p99"] / bare["p99"]:6.2f}
in and out         {found["copy_gb_per_s"]:8.2f} GB/s  {found["memcpy_gb_per_s"]:8.2f} GB/s\
{found["copy_ratio"]:6.2f}
(baseline: an eventfd written and one written back; two memcpy without requests)""")
    return 0
