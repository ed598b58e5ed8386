"""Compare polyvec with the native clients, and measure recall and memory.

    python -m benchmarks speed --backend chroma --backend qdrant     # ratios, a process for each run
    python -m benchmarks recall --backend chroma                     # recall@10 on real text and on noise
    python -m benchmarks memory                                      # peak memory of a streamed ingest

A ratio is polyvec / native: below 1 polyvec is faster. Only ratios and medians of one run mean anything; the
seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import polyvec
from benchmarks import subjects, texts
from polyvec import Record, scores

QUERIES = 200
BACKENDS = ["chroma", "milvus", "milvus-lite", "pinecone", "qdrant", "redis", "typesense"]


def child(*arguments: object) -> dict[str, Any]:
    """Run one measurement in a process of its own and return what it printed."""
    command = [sys.executable, "-m", "benchmarks", "child", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure_speed(name: str, native: bool, records: int) -> dict[str, float]:
    data = subjects.Data.of(texts.embedded(records))
    queries = texts.embedded(records)[np.random.default_rng(1).integers(0, records, QUERIES)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subjects.subject(name, native=native, folder=Path(folder), data=data) as subject,
    ):
        started = time.perf_counter()
        subject.load()
        load_s = time.perf_counter() - started
        subject.settle()
        times: dict[str, list[float]] = {"query": [], "filtered": []}
        for vector in queries:
            for kind, call in (("query", subject.query), ("filtered", subject.filtered)):
                started = time.perf_counter()
                call(vector)
                times[kind].append(time.perf_counter() - started)
    return {
        "load_s": load_s,
        "query_p50_ms": 1000 * statistics.median(times["query"]),
        "filtered_p50_ms": 1000 * statistics.median(times["filtered"]),
    }


def speed(names: list[str], records: int, runs: int) -> None:
    print(f"{records} x 512 text embeddings, 5 metadata keys; median of {runs} runs in turn")
    texts.embedded(records)
    for name in names:
        results: dict[bool, list[dict[str, float]]] = {True: [], False: []}
        for _ in range(runs):
            for native in (True, False):
                results[native].append(child("speed", name, int(native), records))
        for figure in ("load_s", "query_p50_ms", "filtered_p50_ms"):
            mine, theirs = ([run[figure] for run in results[native]] for native in (False, True))
            ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
            print(
                f"{name:8} {figure:16} polyvec {statistics.median(mine):9.3f}   "
                f"native {statistics.median(theirs):9.3f}   ratio {ratio:.2f}"
            )


def recall(names: list[str], records: int) -> None:
    for kind, vectors in (("real text", texts.embedded(records)), ("noise", texts.isotropic(records))):
        data = subjects.Data.of(vectors)
        chosen = np.random.default_rng(2).integers(0, records, QUERIES)
        # a query near a record, not the record itself
        noise = texts.isotropic(QUERIES, seed=3) * (0.02 if kind == "real text" else 1.0)
        queries = vectors[chosen] + noise if kind == "real text" else noise
        truth = np.argsort(-scores.exact("cosine", queries, vectors), axis=1)[:, :10]
        for name in names:
            with (
                tempfile.TemporaryDirectory() as folder,
                subjects.subject(name, native=False, folder=Path(folder), data=data) as subject,
            ):
                subject.load()
                subject.settle()
                found = [set(subject.query(vector)) for vector in queries]
            hits = sum(
                len(ids & {data.ids[row] for row in best}) for ids, best in zip(found, truth, strict=True)
            )
            print(f"{name:8} recall@10 on {kind:9} ({records} x 512): {hits / (10 * QUERIES):.4f}")


def stream(count: int, dimension: int) -> Iterator[Record]:
    block = texts.isotropic(1000, dimension)
    for row in range(count):
        yield Record(f"id-{row}", block[row % 1000], f"passage {row}", subjects.metadata(row))


def measure_memory(url: str, count: int, dimension: int) -> dict[str, float]:
    with polyvec.connect(url, timeout_s=600.0) as store:
        collection = store.create_collection("bench", dimension, "cosine")
        collection.upsert(stream(1000, dimension))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        started = time.perf_counter()
        collection.upsert(stream(count, dimension))
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        store.drop_collection("bench")
    return {"peak_mib": after, "grown_mib": after - before, "seconds": seconds}


def memory(url: str, dimension: int) -> None:
    print(f"streamed ingest into {url}, {dimension} dimensions; peak memory of the client process")
    for count in (20_000, 200_000):
        result = child("memory", url, count, dimension)
        print(
            f"{count:7} records: peak {result['peak_mib']:.0f} MiB, {result['grown_mib']:.0f} MiB above that "
            f"of the first 1,000; {result['seconds']:.0f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command")
    for name in ("speed", "recall"):
        command = commands.add_parser(name)
        command.add_argument("--backend", action="append", choices=BACKENDS)
        command.add_argument("--records", type=int, default=10_000)
        if name == "speed":
            command.add_argument("--runs", type=int, default=3)
    command = commands.add_parser("memory")
    command.add_argument(
        "--url", required=True, help="a server, so that the engine's own memory is not counted"
    )
    command.add_argument("--dimension", type=int, default=64)
    command = commands.add_parser("child")
    command.add_argument("arguments", nargs="+")
    options = parser.parse_args()
    match options.command:
        case "speed":
            speed(options.backend or BACKENDS, options.records, options.runs)
        case "recall":
            recall(options.backend or BACKENDS, options.records)
        case "memory":
            memory(options.url, options.dimension)
        case "child":
            what, *rest = options.arguments
            if what == "speed":
                print(json.dumps(measure_speed(rest[0], rest[1] == "1", int(rest[2]))))
            else:
                print(json.dumps(measure_memory(rest[0], int(rest[1]), int(rest[2]))))
        case _:
            speed(BACKENDS, 10_000, 3)
            recall(BACKENDS, 10_000)


if __name__ == "__main__":
    main()
