"""A running server by its address: requests by clients at once, streamed events, answers of a bounded size.

What every server over HTTP shares. One more is a file of its own with a subclass: what a request is, and what an event
of its stream holds.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple

import requests

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Counters
from fairspec_bench.scoring.executors.serving.engine import EngineRequest, RequestBatch, ServedRequest

MAX_BYTES = 16 * 2**20
MAX_LINE = 2**20
TIMEOUT = 60.0


class Arrival(NamedTuple):
    """What an event of a stream brings: token ids, the counts of its request, whether it was the last."""

    ids: Sequence[int] = ()
    counters: Counters | None = None
    last: bool = False


class HttpServer:
    """A server that streams token ids. `title` is what messages call it, `key` the variable that holds its API key."""

    title: ClassVar[str]
    key: ClassVar[str]
    path: ClassVar[str]
    needs: ClassVar[str]
    """What a server needs so that an answer is whole, for the message where one is not."""

    def __init__(self, url: str, *, speculates: bool):
        """Raises `FairspecError` for what is no address."""
        if not re.match(r"https?://", url):
            raise FairspecError(f"base_url={url}: no address. Give http://HOST:PORT.")
        self.url = url.rstrip("/").removesuffix("/v1")
        self.speculates = speculates
        self.headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get(self.key)) else {}

    def body(self, wanted: EngineRequest) -> Mapping[str, Any]:
        """The request for one prompt."""
        raise NotImplementedError

    def arrival(self, event: Mapping[str, Any], have: int) -> Arrival:
        """What an event of the stream holds after `have` tokens. Raises `FairspecError` for counts that cannot be."""
        raise NotImplementedError

    def serve(self, wanted: Sequence[EngineRequest], at_once: int) -> RequestBatch:
        """As the protocol says, by `at_once` clients."""
        with ThreadPoolExecutor(max_workers=min(at_once, len(wanted))) as clients:
            return RequestBatch(tuple(clients.map(self.complete, wanted)))

    def complete(self, wanted: EngineRequest) -> ServedRequest:
        """One prompt to its end, with what the server counted for it where it says so after the last token."""
        served, ended = ServedRequest(wanted, time.perf_counter_ns()), False
        with self.ask("POST", self.path, json=self.body(wanted), stream=True) as answer:
            have = 0
            for event in self.events(answer):
                if "error" in event:
                    raise FairspecError(f"{self.url}: {wanted.key}: {short(event['error'])}.")
                arrival = self.arrival(event, have)
                have += len(arrival.ids)
                if not ended:
                    ended = served.arrive(arrival.ids, time.perf_counter_ns())
                served.counters = arrival.counters or served.counters
                # What our own rule ends goes on there: its counts would be of more than is kept.
                if ended and (wanted.stop or not self.speculates or served.counters or arrival.last):
                    break
        if not ended:
            raise FairspecError(
                f"{self.url}: {wanted.key} ended after {len(served.ids)} of {wanted.tokens} ids. It needs {self.needs}."
            )
        return served

    def close(self) -> None:
        """The server goes on."""

    def ask(self, method: str, path: str, **given: Any) -> requests.Response:
        """Its answer. Raises `FairspecError` for none, or one that is not of status 200."""
        try:
            answer = requests.request(method, self.url + path, headers=self.headers, timeout=TIMEOUT, **given)
        except requests.RequestException as error:
            raise FairspecError(f"{self.url}: no answer ({type(error).__name__}). Is the server running?") from error
        if answer.status_code != 200:
            said = short(answer.raw.read(2000, decode_content=True).decode(errors="replace"))
            answer.close()
            hint = f" Set {self.key}." if answer.status_code in (401, 403) else ""
            raise FairspecError(f"{self.url}{path}: HTTP {answer.status_code} ({said}).{hint}")
        return answer

    def read(self, path: str) -> bytes:
        """A whole answer of at most `MAX_BYTES`."""
        held = bytearray()
        with self.ask("GET", path, stream=True) as answer:
            for piece in answer.iter_content(2**16):
                held += piece
                if len(held) > MAX_BYTES:
                    raise FairspecError(f"{self.url}: answers with more than {MAX_BYTES} bytes. Is it {self.title}?")
        return bytes(held)

    def read_json(self, path: str) -> Mapping[str, Any]:
        """An answer that is one JSON object. Raises `FairspecError` for another."""
        try:
            found = json.loads(self.read(path))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise FairspecError(f"{self.url}{path}: is no JSON object. Is it {self.title}?")
        return found

    def events(self, answer: requests.Response) -> Iterator[Mapping[str, Any]]:
        """The objects of a stream of server-sent events, up to its end."""
        try:
            for line in answer.iter_lines(chunk_size=None):
                if len(line) > MAX_LINE:
                    raise FairspecError(f"{self.url}: sends a line of over {MAX_LINE} bytes. Is it {self.title}?")
                if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                    event = json.loads(data)
                    if isinstance(event, dict):
                        yield event
        except (requests.RequestException, ValueError) as error:
            raise FairspecError(
                f"{self.url}: broke off ({type(error).__name__}). What was finished is kept."
            ) from error


def by_histogram(where: str, histogram: object, rounds: object, drafts: object, accepted: object) -> Counters:
    """Counts of one request: `histogram[j]` rounds of which exactly j drafts were accepted.

    Raises `FairspecError` for what are no counts, or contradict each other.
    """
    sums = (rounds, drafts, accepted)
    counts = histogram if isinstance(histogram, list) else [None]
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in (*sums, *counts)):
        raise FairspecError(f"{where}: the counts of a request are no counts ({short([*sums, histogram])}). Update it.")
    positions = tuple(sum(counts[place:]) for place in range(1, len(counts)))
    found = Counters.model_construct(rounds=rounds, drafts=drafts, accepted=accepted, accepted_by_position=positions)
    if sum(counts) != found.rounds or sum(positions) != found.accepted or found.accepted > found.drafts:
        raise FairspecError(
            f"{where}: the counts of a request contradict each other ({short([*sums, histogram])}). Update the server."
        )
    return found


def short(value: object) -> str:
    """A value in one line."""
    return " ".join(str(value).split())[:200]
