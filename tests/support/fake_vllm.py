"""A server with vLLM's interface and this engine behind it, so that a client is tested where vLLM is not installed.

It streams token ids as vLLM does, counts its speculation as vLLM does (drafts that stand beyond a text included), and
can be told to misbehave.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.speculative import Request, decode
from fairspec_bench.models.model import Model
from fairspec_bench.schemas.config import SamplingParams

GREEDY = SamplingParams()


@dataclass
class Fake:
    """What the server has counted, and what it is told to do wrong."""

    verifier: Model
    drafter: Drafter | None
    gamma: int
    name: str = "served"
    requests: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    rounds: int = 0
    drafts: int = 0
    accepted: list[int] = field(default_factory=list)
    wrong: str = ""
    per_request: bool = False
    cumulative: bool = True
    bodies: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def complete(self, ids: list[int], count: int) -> tuple[list[list[int]], dict[str, Any]]:
        """The arrivals: the prefill's token, then block by block; and what was drafted for this request."""
        request = Request("x", tuple(ids), count, 0)
        verifier = self.verifier
        past = self.wrong.startswith("past ") and len(ids) > int(self.wrong.split()[1])
        drafter = None if self.wrong == "idle" or past else self.drafter
        with self.lock:
            if self.wrong == f"restart {self.requests}":
                self.requests = self.prompt_tokens = self.tokens = self.rounds = self.drafts = 0
                self.accepted = [0] * self.gamma
            (done,) = decode(verifier, drafter, [request], sampling=GREEDY, gamma=self.gamma, batch_size=1, seed=0)
            self.requests += 1 + (self.wrong == "others")
            self.prompt_tokens += len(ids)
            self.tokens += len(done.ids)
            arrivals, place = [[done.ids[0]]], 1
            for block in done.blocks:
                arrivals.append(list(done.ids[place : place + block.emitted]))
                place += block.emitted
                for position in range(block.raw_accepted):
                    self.accepted[position] += 1
            idle = self.drafter is None or self.wrong == "idle"
            rounds = 0 if idle else len(done.blocks) + (self.wrong == "rounds" and len(done.blocks) > 3)
            self.rounds += rounds + 1000 * (self.wrong == "jump")
            # A round whose draft is one token shorter has nothing to accept at its end: the least of a change.
            self.drafts += rounds * self.gamma - (self.wrong == "depth" and done.blocks[-1].raw_accepted < self.gamma)
        if self.wrong == "text" and len(arrivals[-1]) > 0:
            arrivals[-1][-1] = (arrivals[-1][-1] + 1) % verifier.vocab_size
        if self.wrong == "short":
            arrivals.pop()
        histogram = [0] * (self.gamma + 1)
        for block in done.blocks if rounds else ():
            histogram[block.raw_accepted] += 1
        accepted = sum(place * times for place, times in enumerate(histogram))
        histogram[0] += self.wrong == "histogram"
        if self.wrong == "renamed":
            return arrivals, {"accepted_histogram": histogram, "num_spec_steps": rounds}
        return arrivals, {
            "mean_acceptance_length": 1 + accepted / max(1, rounds),
            "draft_acceptance_rate": accepted / max(1, rounds * self.gamma),
            "acceptance_histogram": histogram,
            "num_spec_steps": rounds,
            "num_accepted_draft_tokens": accepted,
            "num_draft_tokens": rounds * self.gamma,
            "num_spec_tokens": self.gamma,
        }

    def metrics(self) -> str:
        """Prometheus text, two engines' worth of labels."""
        lines = [
            "# HELP vllm:prompt_tokens_total Number of prefill tokens processed.",
            f'vllm:prompt_tokens_total{{engine="0",model_name="{self.name}"}} {float(self.prompt_tokens)}',
            f'vllm:generation_tokens_total{{engine="0",model_name="{self.name}"}} {float(self.tokens)}',
            f'vllm:request_success_total{{engine="0",finished_reason="length"}} {float(self.requests)}',
            'vllm:request_success_total{engine="0",finished_reason="stop"} 0.0',
            f'vllm:num_requests_running{{engine="0"}} {float(self.wrong == "busy")}',
            'vllm:num_requests_waiting{engine="0"} 0.0',
        ]
        if self.drafter is not None and not (self.wrong == "vanish" and self.requests > 2):
            lines += [
                f'vllm:spec_decode_num_drafts_total{{engine="0"}} {float(self.rounds)}',
                f'vllm:spec_decode_num_draft_tokens_total{{engine="0"}} {float(self.drafts)}',
                f'vllm:spec_decode_num_accepted_tokens_total{{engine="0"}} {float(sum(self.accepted))}',
                *(
                    f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{position="{place}"}} {float(count)}'
                    for place, count in enumerate(self.accepted)
                ),
            ]
        if self.wrong.startswith("drop "):
            lines = [line for line in lines if self.wrong.split()[1] not in line]
        if self.wrong.startswith("count ") and self.requests:
            lines = [f"{line.rpartition(' ')[0]} {self.wrong.split()[2]}" if self.wrong.split()[1] in line else line
                     for line in lines]  # fmt: skip
        return "\n".join(lines) + "\n"


@contextmanager
def served(fake: Fake) -> Iterator[str]:
    """The server's address while the context lasts."""
    fake.accepted = fake.accepted or [0] * fake.gamma

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def _send(self, text: str, status: int = 200) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if fake.wrong == "no-key":
                self._send("unauthorized", 401)
            elif self.path == "/get_model_info":
                self._send(json.dumps({"model_path": fake.name}))
            elif self.path == "/metrics":
                self._send(fake.metrics())
            else:
                card = {"id": fake.name, "max_model_len": fake.verifier.max_positions}
                self._send(json.dumps({"object": "list", "data": [card]}))

        def _generate(self, body: dict[str, Any]) -> None:
            """As SGLang's native interface answers."""
            arrivals, counted = fake.complete(body["input_ids"], body["sampling_params"]["max_new_tokens"])
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            done: list[int] = []
            try:
                for place, ids in enumerate(arrivals):
                    done += ids
                    last = place == len(arrivals) - 1
                    meta: dict[str, Any] = {"completion_tokens": len(done), "finish_reason": None}
                    if last:
                        meta["finish_reason"] = {"type": "length", "length": len(done)}
                        if fake.per_request and fake.drafter:
                            meta["spec_verify_ct"] = counted["num_spec_steps"]
                            meta["spec_num_proposed_drafts"] = counted["num_draft_tokens"]
                            meta["spec_num_correct_drafts"] = counted["num_accepted_draft_tokens"]
                            meta["spec_correct_drafts_histogram"] = counted["acceptance_histogram"]
                    event = {"text": "", "output_ids": done if fake.cumulative else ids, "meta_info": meta}
                    self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")
            except BrokenPipeError:
                pass
            self.close_connection = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fake.bodies.append(body)
            if self.path == "/generate":
                self._generate(body)
                return
            arrivals, counted = fake.complete(body["prompt"], body["max_tokens"])
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                for ids in arrivals:
                    event = {"choices": [{"index": 0, "text": "", "token_ids": ids}]}
                    self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                if body.get("stream_options", {}).get("include_usage"):
                    last = {"choices": [], "usage": {"completion_tokens": body["max_tokens"]}}
                    if fake.per_request:
                        last["metrics"] = {"speculative_decoding": counted if fake.drafter else None}
                    self.wfile.write(f"data: {json.dumps(last)}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")
            except BrokenPipeError:
                pass  # the client had enough: its text ended
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
