"""The service: one reward behind HTTP on 127.0.0.1, on a free port, for as long as its starter lives.

The first line on standard output is JSON: {"port": ...} when the reward is loaded, {"error": ...} when it
cannot be. Standard input is the leash: when its other end closes, for whatever reason, the service ends.

    GET  /health  -> {"reward": name, "transformers": version}
    POST /score   <- the message of ``rewards.service.wire``  -> {"scores": [...]}
    Errors: {"error": text} with 400 for a message that is wrong, 500 for a reward that fails.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import torch

from rewards.base import Reward
from rewards.service import wire

LARGEST = 1 << 30  # bytes of a request


class Handler(BaseHTTPRequestHandler):
    """Answers for ``server.reward``; one request at a time reaches the model."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path != "/health":
            return self._reply(404, {"error": f"no such page: {self.path}"})
        self._reply(200, {"reward": self.server.reward.name, "transformers": version("transformers")})

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", -1))
        if self.path != "/score" or not 0 <= size <= LARGEST:
            self.close_connection = True
            return self._reply(400, {"error": f"POST to /score with at most {LARGEST} bytes, not {size}"})
        try:
            images, prompts, metadata = wire.unpack(self.rfile.read(size))
        except wire.WireError as error:
            return self._reply(400, {"error": str(error)})
        try:
            with self.server.lock, torch.inference_mode():
                scores = self.server.reward.score(images, prompts, metadata)
            self._reply(200, {"scores": scores.tolist()})
        except Exception as error:  # any failure of the model is the client's to report
            self.log_error("%s: %s", type(error).__name__, error)
            self._reply(500, {"error": f"{type(error).__name__}: {error}"})

    def _reply(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-") -> None:
        """Only errors are worth a line."""


def serve(reward: Reward, announce) -> None:
    """Serve until standard input closes. ``announce`` gets the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.reward, server.lock = reward, threading.Lock()

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

    try:
        reward = load(options.reward)
    except Exception as error:
        announce({"error": f"{type(error).__name__}: {error}"})
        raise
    serve(reward, announce)


if __name__ == "__main__":
    main()
