"""A running vLLM server, by its address: completions over HTTP, counters from its `/metrics`.

The server is somebody else's: what it
counted while others used it too is refused. Arrivals over a network need not be blocks: the counters must say so.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Counters
from fairspec_bench.scoring.executors.serving.engine import EngineRequest, RequestBatch, ServedRequest, count

API_KEY = "VLLM_API_KEY"
MAX_BYTES = 16 * 2**20
MAX_LINE = 2**20
TIMEOUT = 60.0
TRAFFIC = ("request_success", "prompt_tokens", "generation_tokens")
Traffic = tuple[int, int, int]
"""Requests that ended, prompt tokens and output tokens."""
SETTLE, PAUSE = 5.0, 0.05
"""Seconds in which a server's counters must catch up with what it answered, and between two looks."""
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_POSITION = re.compile(r'(?:^|,)position="(\d+)"')


class Server:
    """One model of a vLLM server, with a drafter (`speculates`) or without."""

    def __init__(self, url: str, *, speculates: bool):
        """Raises `FairspecError` for an address where no vLLM server answers."""
        self.seen: Traffic = (0, 0, 0)
        if not re.match(r"https?://", url):
            raise FairspecError(f"base_url={url}: no address. Give http://HOST:PORT.")
        self.url = url.rstrip("/").removesuffix("/v1")
        self.speculates = speculates
        self.headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get(API_KEY)) else {}
        card = self._card()
        self.model = str(card["id"])
        self.max_positions = int(card["max_model_len"]) if card.get("max_model_len") else None
        found = self.counters()
        if speculates and (found is None or not found.accepted_by_position):
            raise FairspecError(f"{self.url}: counts no speculation. Start it with --speculative-config.")
        if not speculates and self._speculation() is not None:
            raise FairspecError(f"{self.url}: speculates, so it is no baseline. Give the server without a drafter.")

    def serve(self, wanted: Sequence[EngineRequest], at_once: int) -> RequestBatch:
        """As the protocol says, by `at_once` clients. Raises `FairspecError` if anybody else was served meanwhile."""
        self._await_idle()
        before = self._traffic()
        with ThreadPoolExecutor(max_workers=min(at_once, len(wanted))) as clients:
            served = tuple(clients.map(self._complete, wanted))
        most = (len(wanted), sum(len(each.ids) for each in wanted), sum(each.tokens for each in wanted))
        # What ended by our own rule was cut off, which vLLM need not count as a request.
        cut = any(each.stop for each in wanted)
        least = (0, most[1], sum(len(one.ids) for one in served)) if cut else most
        self._refuse_others(before, least, most)
        return RequestBatch(served)

    def counters(self) -> Counters | None:
        """From `/metrics`, all of the server's engines together."""
        return self._speculation() if self.speculates else None

    def close(self) -> None:
        """The server goes on."""

    def _complete(self, wanted: EngineRequest) -> ServedRequest:
        body = {
            "model": self.model,
            "prompt": list(wanted.ids),
            "max_tokens": wanted.tokens,
            "temperature": 0,
            # A server's defaults are those of the model's generation_config.json.
            "repetition_penalty": 1.0,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
        }
        served = ServedRequest(wanted, time.perf_counter_ns())
        with self._ask("POST", "/v1/completions", json=body, stream=True) as answer:
            for event in _events(answer, self.url):
                if "error" in event:
                    raise FairspecError(f"{self.url}: {wanted.key}: {_short(event['error'])}.")
                ids = [token for choice in event.get("choices", ()) for token in choice.get("token_ids") or ()]
                if served.arrive(ids, time.perf_counter_ns()):
                    return served
        raise FairspecError(
            f"{self.url}: {wanted.key} ended after {len(served.ids)} of {wanted.tokens} ids. It needs vLLM 0.10.2 or "
            "newer (return_token_ids) and room for the whole answer (--max-model-len)."
        )

    def _card(self) -> Mapping[str, Any]:
        with self._ask("GET", "/v1/models", stream=True) as answer:
            try:
                cards = json.loads(_capped(answer, self.url))["data"]
                served = [card for card in cards if not card.get("parent")]
            except (ValueError, KeyError, TypeError, AttributeError):
                raise FairspecError(f"{self.url}: no OpenAI-compatible server (/v1/models is not its list).") from None
        if len(served) != 1:
            raise FairspecError(f"{self.url}: serves {len(served)} models. Give a server of one.")
        return dict(served[0])

    def _metrics(self) -> dict[str, dict[str, float]]:
        """Every sample by name and labels."""
        with self._ask("GET", "/metrics", stream=True) as answer:
            text = _capped(answer, self.url).decode(errors="replace")
        return read_metrics(text)

    def _speculation(self) -> Counters | None:
        found = self._metrics()
        if "vllm:spec_decode_num_drafts_total" not in found:
            return None

        def total(name: str) -> int:
            return self._total(found, f"vllm:spec_decode_{name}_total")

        positions: dict[int, int] = {}
        for labels, value in found.get("vllm:spec_decode_num_accepted_tokens_per_pos_total", {}).items():
            if at := _POSITION.search(labels):
                positions[int(at[1])] = positions.get(int(at[1]), 0) + count(f"{self.url}: {labels}", value)
        return Counters(
            rounds=total("num_drafts"),
            drafts=total("num_draft_tokens"),
            accepted=total("num_accepted_tokens"),
            accepted_by_position=tuple(positions.get(place, 0) for place in range(max(positions, default=-1) + 1)),
        )

    def _total(self, found: Mapping[str, Mapping[str, float]], name: str) -> int:
        """A counter over all of the server's engines. Raises `FairspecError` for none, or one that is not a count."""
        if name not in found:
            raise FairspecError(f"{self.url}: /metrics has no {name}. Give a vLLM server that logs statistics.")
        return sum(count(f"{self.url}: {name}", value) for value in found[name].values())

    def _traffic(self) -> Traffic:
        """Requests that ended, prompt tokens and output tokens since the server started."""
        found, before = self._metrics(), self.seen
        ended, asked, made = (self._total(found, f"vllm:{name}_total") for name in TRAFFIC)
        self.seen = (ended, asked, made)
        if any(late < early for early, late in zip(before, self.seen, strict=True)):
            raise FairspecError(
                f"{self.url}: its counters fell from {before} to {self.seen}. Was it restarted? Run again."
            )
        return self.seen

    def _await_idle(self) -> None:
        """What was cut off here ends a moment later; what goes on is somebody else's."""
        until = time.monotonic() + SETTLE
        while busy := self._busy():
            if time.monotonic() > until:
                raise FairspecError(f"{self.url}: busy with {busy} requests: others use it. Run again when it is idle.")
            time.sleep(PAUSE)

    def _busy(self) -> int:
        found = self._metrics()
        return sum(self._total(found, f"vllm:num_requests_{kind}") for kind in ("running", "waiting"))

    def _refuse_others(self, before: Traffic, least: Traffic, most: Traffic) -> None:
        """The server must have done what was asked here and nothing else."""
        until = time.monotonic() + SETTLE
        while True:
            did = [late - early for early, late in zip(before, self._traffic(), strict=True)]
            behind = any(done < wanted for done, wanted in zip(did, least, strict=True))
            beyond = any(done > wanted for done, wanted in zip(did, most, strict=True))
            if not behind and not beyond:
                return
            if beyond or time.monotonic() > until:
                why = "others use it. Run again when it is idle" if beyond else "was it restarted? Run again"
                raise FairspecError(
                    f"{self.url}: served {did[0]} requests with {did[1]} prompt and {did[2]} output tokens where "
                    f"{most[0]}, {most[1]} and {most[2]} were asked here: {why}."
                )
            time.sleep(PAUSE)

    def _ask(self, method: str, path: str, **given: Any) -> requests.Response:
        try:
            answer = requests.request(method, self.url + path, headers=self.headers, timeout=TIMEOUT, **given)
        except requests.RequestException as error:
            raise FairspecError(f"{self.url}: no answer ({type(error).__name__}). Is the server running?") from error
        if answer.status_code != 200:
            said = _short(answer.raw.read(2000, decode_content=True).decode(errors="replace"))
            answer.close()
            hint = f" Set {API_KEY}." if answer.status_code in (401, 403) else ""
            raise FairspecError(f"{self.url}{path}: HTTP {answer.status_code} ({said}).{hint}")
        return answer


def read_metrics(text: str) -> dict[str, dict[str, float]]:
    """The samples of Prometheus' text format, by name and then by their labels as written."""
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if not line.startswith("#") and (sample := _SAMPLE.match(line)):
            try:
                found.setdefault(sample[1], {})[sample[2] or ""] = float(sample[3])
            except ValueError:
                continue
    return found


def _events(answer: requests.Response, url: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a stream of server-sent events, up to its end."""
    try:
        for line in answer.iter_lines(chunk_size=None):
            if len(line) > MAX_LINE:
                raise FairspecError(f"{url}: sends a line of over {MAX_LINE} bytes. Is it a vLLM server?")
            if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                event = json.loads(data)
                if isinstance(event, dict):
                    yield event
    except (requests.RequestException, ValueError) as error:
        raise FairspecError(f"{url}: broke off ({type(error).__name__}). What was finished is kept.") from error


def _capped(answer: requests.Response, url: str) -> bytes:
    held = bytearray()
    for piece in answer.iter_content(2**16):
        held += piece
        if len(held) > MAX_BYTES:
            raise FairspecError(f"{url}: answers with more than {MAX_BYTES} bytes. Is it a vLLM server?")
    return bytes(held)


def _short(value: object) -> str:
    return " ".join(str(value).split())[:200]
