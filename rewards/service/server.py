"""The service: one reward behind HTTP on 127.0.0.1, on a free port, for as long as its starter lives.

The first line on standard input is a token, which every request must bear: other users of the machine reach
the loopback interface too. Then standard input is the leash: when its other end closes, for whatever reason,
the service ends. The first line on standard output is JSON: {"port": ...} when the reward is loaded,
{"error": ...} when it cannot be.

    GET  /health  -> {"reward": name, "transformers": version}
    POST /score   <- the message of ``rewards.service.wire``  -> {"scores": [...]}
    Errors: {"error": text} with 400 for a message that is wrong, 401 without the token, 413 for one that is
    too large, 500 for a reward that fails, 503 where too much is under way.
"""

from __future__ import annotations

import argparse
import hmac
import importlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import torch

from rewards.base import Reward
from rewards.service import wire

SHORTEST = 32  # characters of a token
LARGEST = 1 << 28  # bytes of a request; a clip of 93 frames of 704 x 1280 takes 251 MB
SILENCE = 30  # seconds that a client may say nothing
TRANSFER = 120  # seconds in which a request must have come
CONNECTIONS = 16  # at a time
SCORES = 4  # at a time, so that one that hangs blocks no other
PATIENCE = 60  # seconds that a request waits for its turn


class Refused(Exception):
    """A request that is not served: HTTP status and reason."""


class Handler(BaseHTTPRequestHandler):
    """Answers for ``server.reward``."""

    protocol_version = "HTTP/1.1"
    timeout = SILENCE  # of the socket

    def do_GET(self) -> None:
        self._answer(self._health)

    def do_POST(self) -> None:
        self._answer(self._score)

    def _answer(self, page: Callable[[], dict]) -> None:
        """Every request has an answer, whatever is wrong with it."""
        try:
            self._check_sender()
            self._reply(200, page())
        except Refused as error:
            self.close_connection = True
            self._reply(error.args[0], {"error": error.args[1]})
        except wire.WireError as error:
            self._reply(400, {"error": str(error)})
        except Exception as error:  # any failure of the model is the client's to report
            self.log_error("%s: %s", type(error).__name__, error)
            self.close_connection = True
            self._reply(500, {"error": f"{type(error).__name__}: {error}"})

    def _check_sender(self) -> None:
        given = self.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self.server.token}".encode()):
            raise Refused(401, "a request must bear the service's token")
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            raise Refused(403, "the service answers on the loopback interface alone")  # no page of a browser

    def _health(self) -> dict:
        if self.path != "/health":
            raise Refused(404, f"no such page: {self.path[:80]}")
        return {"reward": self.server.reward.name, "transformers": version("transformers")}

    def _score(self) -> dict:
        if self.path != "/score":
            raise Refused(404, f"no such page: {self.path[:80]}")
        images, prompts, metadata = wire.unpack(self._body())
        if not self.server.scoring.acquire(timeout=PATIENCE):
            raise Refused(503, f"{SCORES} requests are being scored")
        try:
            with torch.inference_mode():
                return {"scores": self.server.reward.score(images, prompts, metadata).tolist()}
        finally:
            self.server.scoring.release()

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,12}", length, re.ASCII) or "Transfer-Encoding" in self.headers:
            raise Refused(400, "Content-Length must be the number of bytes")
        if int(length) > LARGEST:
            raise Refused(413, f"a request has at most {LARGEST} bytes")
        parts, left, end = [], int(length), time.monotonic() + TRANSFER
        while left:
            part = self.rfile.read1(min(left, 1 << 20))
            if not part or time.monotonic() > end:
                raise Refused(400, f"{left} of {length} bytes have not come")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _reply(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-") -> None:
        """Only errors are worth a line."""


class Server(ThreadingHTTPServer):
    """A bounded number of connections, each with a thread of its own."""

    daemon_threads = True

    def __init__(self, reward: Reward, token: str):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reward, self.token = reward, token
        self.scoring = threading.BoundedSemaphore(SCORES)
        self.connections = threading.BoundedSemaphore(CONNECTIONS)

    def process_request(self, request, client_address):
        if self.connections.acquire(blocking=False):
            return super().process_request(request, client_address)
        request.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.shutdown_request(request)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()


def serve(reward: Reward, token: str, announce) -> None:
    """Serve until standard input closes. ``announce`` gets the port."""
    server = Server(reward, token)

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        os._exit(0)  # a request under way has nobody left who waits for it

    threading.Thread(target=wait_for_end, daemon=True).start()
    announce({"port": server.server_address[1]})
    server.serve_forever()


def load(place: str) -> Reward:
    """An instance of the class at ``module:class``."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m rewards.service.server", description=__doc__)
    parser.add_argument("reward", help="module:class")
    options = parser.parse_args(arguments)
    first = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log

    def announce(content: dict) -> None:
        print(json.dumps(content), file=first, flush=True)

    token = sys.stdin.buffer.readline().decode().strip()
    if len(token) < SHORTEST:
        parser.error(f"the first line of standard input must be a token of at least {SHORTEST} characters")
    try:
        reward = load(options.reward)
    except Exception as error:
        announce({"error": f"{type(error).__name__}: {error}"})
        raise
    serve(reward, token, announce)


if __name__ == "__main__":
    main()
