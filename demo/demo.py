"""The demo: real documents in a vector database, searched, and then the same on another database.

Run it from the root of the repository, with polyvec and its drivers installed: `python demo/demo.py`.
Each step is a command of `polyvec` that is printed before it runs, so all of it can be repeated by hand.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polyvec
from polyvec.types import Match

DEMO = Path("demo")
DATA = DEMO / "data"
CONFIGURATION = DEMO / "polyvec.toml"
SWITCHED = DATA / "polyvec.toml"
FIRST_URL = 'url = "chroma:./data/chroma"'
SECOND_URL = 'url = "qdrant:./qdrant"'
STORES = (f"chroma:{DATA / 'chroma'}", f"qdrant:{DATA / 'qdrant'}")

ENGLISH = "A tyre on my bike has gone flat. How do I fix it?"
KOREAN = "블랙홀의 실제 사진은 어떻게 찍었나요?"
KOREAN_MEANS = "how was the real picture of a black hole taken?"
ABROAD = "해외로 출장 가는 직원에게 회사는 하루 식사비를 얼마나 주나요?"
ABROAD_MEANS = "what does the company pay for meals on a business trip abroad?"
FILTER = 'year >= 2015 and lang in ["en"]'
LIMIT = 10
TOLERANCE = 1e-3

_times: list[tuple[str, float]] = []


def main() -> int:
    """Run all steps and return 0 if both databases gave the same answers."""
    if not CONFIGURATION.is_file():
        print("run this from the root of the repository: python demo/demo.py", file=sys.stderr)
        return 2
    shutil.rmtree(DATA, ignore_errors=True)
    print(
        "This demo embeds 480 short notes in English and Korean with a model that runs here, keeps them in\n"
        "Chroma, searches them, and then does the same on Qdrant. It needs no server, key or network; all\n"
        f"it writes is in {DATA}. To repeat a step by hand, type what stands after the $, in an environment\n"
        "where polyvec is installed."
    )
    with step("Ingest the notes into Chroma"):
        print(f"The store is one line of {CONFIGURATION}: {FIRST_URL}")
        run("ingest", "demo/corpus", "--quiet")
    with step("What is there now"):
        run("count")
        run("describe")
    with step("Ask in English; the best answer is Korean, the next one English"):
        run("search", ENGLISH, "--limit", "2")
    with step(f"Ask in Korean ({KOREAN_MEANS})"):
        run("search", KOREAN, "--limit", "2")
    with step(f"Ask in Korean ({ABROAD_MEANS}), for recent English notes only"):
        run("search", ABROAD, "--filter", FILTER, "--limit", "2")
        run("count", "--filter", FILTER)
    with step("Ingest again: nothing is embedded twice, nothing changes"):
        answer = run("ingest", "demo/corpus", "--quiet", "--json", capture=True)
        print(answer)
        again = json.loads(answer)
        unchanged = (again["skipped"], again["embedded"], again["written"]) == (480, 0, 0)
        print("=> nothing changed" if unchanged else f"=> SOMETHING CHANGED: {again}")
    with step("The same on Qdrant: one line of the configuration is another one"):
        switch()
        run("ingest", "demo/corpus", "--quiet")
        run("search", ENGLISH, "--limit", "2")
    with step("Compare: all 60 questions of demo/queries.jsonl, with and without a filter, on both"):
        same = compare()
    print("\nHow long it took")
    for title, seconds in _times:
        print(f"  {seconds:5.1f} s  {title}")
    print(f"  {sum(seconds for _, seconds in _times):5.1f} s  in all")
    print(f"The data: {' and '.join(store.partition(':')[2] for store in STORES)}")
    return 0 if same and unchanged else 1


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print a title, and note how long the step takes."""
    print(f"\n== {len(_times) + 1}. {title}", flush=True)
    started = time.perf_counter()
    yield
    _times.append((title, time.perf_counter() - started))


_configuration = CONFIGURATION


def run(*arguments: str, capture: bool = False) -> str:
    """Print a command of polyvec and run it; the output is returned instead of shown with `capture`."""
    print(f"$ POLYVEC_CONFIG={_configuration} {shlex.join(['polyvec', *arguments])}", flush=True)
    command = Path(sys.executable).with_name("polyvec")
    environment = {key: value for key, value in os.environ.items() if key != "POLYVEC_STORE"}
    done = subprocess.run(  # noqa: S603  # our own command
        [command, *arguments],
        env=environment | {"POLYVEC_CONFIG": str(_configuration), "COLUMNS": "110"},
        stdout=subprocess.PIPE if capture else None,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        sys.exit(f"the command failed with exit code {done.returncode}")
    return done.stdout or ""


def switch() -> None:
    """Write a copy of the configuration with another URL, and use it from now on."""
    global _configuration  # noqa: PLW0603
    text = CONFIGURATION.read_text("utf-8")
    SWITCHED.write_text(text.replace(FIRST_URL, SECOND_URL, 1), "utf-8")
    _configuration = SWITCHED
    print(f"{CONFIGURATION}:      {FIRST_URL}\n{SWITCHED}: {SECOND_URL}")


def compare() -> bool:
    """Ask both stores all questions and say whether the answers are the same."""
    with Path("demo/queries.jsonl").open(encoding="utf-8") as file:
        questions = [json.loads(line)["query"] for line in file]
    vectors = polyvec.embedder("local").embed_documents(questions)
    answers: list[list[list[Match]]] = []
    for url in STORES:
        with polyvec.connect(url) as store:
            notes = store.collection("notes")
            found = notes.query_many(vectors, limit=LIMIT)
            answers.append(found + notes.query_many(vectors, limit=LIMIT, filter=FILTER))
    first, second = answers
    ids = sum(
        [match.id for match in mine] == [match.id for match in theirs]
        for mine, theirs in zip(first, second, strict=True)
    )
    others = sum(
        (match.text, match.metadata) != (twin.text, twin.metadata)
        for mine, theirs in zip(first, second, strict=True)
        for match, twin in zip(mine, theirs, strict=False)
        if match.id == twin.id
    )
    apart = max(
        abs(match.score - twin.score)
        for mine, theirs in zip(first, second, strict=True)
        for match, twin in zip(mine, theirs, strict=False)
    )
    print(f"{ids} of {len(first)} searches have the same {LIMIT} answers in the same order")
    print(f"scores differ by {apart:.1e} at most; texts and metadata differ in {others} answers")
    same = ids == len(first) and apart <= TOLERANCE and not others
    print("=> the same answers" if same else "=> THE ANSWERS DIFFER")
    return same


if __name__ == "__main__":
    sys.exit(main())
