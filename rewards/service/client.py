"""A reward that scores in its own environment: the same interface, the model behind a local service."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import selectors
import subprocess
import threading
import time
import weakref
from pathlib import Path

import torch

from core.media import medium_of
from rewards.base import Reward, RewardError
from rewards.service import wire
from rewards.service.environment import EnvironmentMissing, interpreter

ROOT = Path(__file__).resolve().parents[2]
REQUEST = 16  # images or frames per request, at least one clip; bounds a message's size, changes no score
STARTUP = 900  # seconds to import and load; reading 17 GB from a network disk takes minutes
ANSWER = 300  # seconds to score one request
ATTEMPTS = 3
PAUSE = 1.0  # seconds before the second attempt, twice as long before each further one


class ServiceDown(RuntimeError):
    """The service did not answer this time."""


class IsolatedReward(Reward):
    """Scores like the reward class that it is given, in that class's environment."""

    def __init__(self, reward: type[Reward]):
        self.reward = reward
        self.name, self.scale, self.licence = reward.name, reward.scale, reward.licence
        self.medium = reward.medium
        self._variables = _environment()  # here: a thread that scores does not know its process's GPU
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._port, self._token = 0, ""

    def score(self, images, prompts, metadata):
        scores: list[float] = []
        size = REQUEST if medium_of(images) == "image" else max(1, REQUEST // images.shape[1])
        for start in range(0, len(images), size):
            rows = slice(start, start + size)
            scores += self._persist(wire.pack(images[rows], prompts[rows], metadata[rows]))
        return torch.tensor(scores)

    def close(self) -> None:
        """End the service if it runs."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _persist(self, message: bytes) -> list[float]:
        """Ask until there is an answer, at most ``ATTEMPTS`` times."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                with self._lock:
                    self._ensure()
                return self._ask("POST", "/score", message, ANSWER)["scores"]
            except ServiceDown as error:
                reason = error
        self.close()
        raise RewardError(f"reward {self.name!r}: its service stays down after {ATTEMPTS} attempts: {reason}")

    def _ensure(self) -> None:
        """Start the service unless it runs and is healthy."""
        if self._process is not None:
            try:
                self._ask("GET", "/health", None, ANSWER)
                return
            except ServiceDown:
                self.close()
        try:
            python = interpreter(self.reward.environment)
        except EnvironmentMissing as error:
            raise RewardError(f"reward {self.name!r}: {error}") from None
        self._process = subprocess.Popen(
            [python, "-m", "rewards.service.server", f"{self.reward.__module__}:{self.reward.__name__}"],
            stdin=subprocess.PIPE,  # for the token; closes with this process, however it ends
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=self._variables,
        )
        weakref.finalize(self, _end, self._process)
        self._token = secrets.token_hex()
        with contextlib.suppress(BrokenPipeError):  # it has ended: the announcement says so
            self._process.stdin.write(f"{self._token}\n".encode())
            self._process.stdin.flush()
        self._port = self._announced()

    def _announced(self) -> int:
        """The port, once the service has loaded its reward."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            ready = selector.select(STARTUP)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self.close()
            raise ServiceDown("it ended before it was ready" if ready else f"not ready after {STARTUP} s")
        content = json.loads(line)
        if "error" in content:
            self.close()
            raise RewardError(f"reward {self.name!r}: its service cannot load it: {content['error']}")
        return content["port"]

    def _ask(self, method: str, path: str, body: bytes | None, timeout: float) -> dict:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        try:
            headers = {"Content-Type": "application/octet-stream", "Authorization": f"Bearer {self._token}"}
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            content = json.loads(reply.read())
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            self.close()  # a service that hangs must not be asked again
            raise ServiceDown(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()
        if reply.status == 400:
            raise RewardError(f"reward {self.name!r}: {content['error']}")
        if reply.status != 200:
            raise ServiceDown(content["error"])
        return content


def _environment() -> dict[str, str]:
    """Variables of the service: no module path of the trainer, no downloads, the trainer's own GPU."""
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    variables["HF_HUB_OFFLINE"] = "1"
    if torch.cuda.is_available():
        visible = variables.get("CUDA_VISIBLE_DEVICES")
        index = torch.cuda.current_device()
        variables["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index] if visible else str(index)
    return variables


def _end(process: subprocess.Popen) -> None:
    """Let go of the leash; insist where that is not enough."""
    process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
