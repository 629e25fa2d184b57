"""Rewards in processes and environments of their own."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import transformers

import rewards
from rewards.base import RewardError
from rewards.service import client, environment, wire
from rewards.service.client import IsolatedReward, ServiceDown
from tests.isolated_rewards import Bright, Crashing, Unloadable

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def trainers_python(monkeypatch):
    """Services run in this environment and fail fast: their life needs no other."""
    monkeypatch.setattr(client, "interpreter", lambda name: sys.executable)
    monkeypatch.setattr(client, "PAUSE", 0.01)


@pytest.fixture
def bright(trainers_python):
    reward = IsolatedReward(Bright)
    yield reward
    reward.close()


def alive(pid: int) -> bool:
    """Whether the process runs, a zombie being none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def test_the_service_scores_restarts_and_ends(bright):
    """One service through its life: start on demand, many requests, death, restart, end."""
    images = torch.linspace(0, 1, 40)[:, None, None, None].expand(40, 3, 8, 8)
    expected = (images[:, 0, 0, 0] * 255).round() / 255
    prompts, metadata = ["a cup"] * 40, [{"tag": "x"}] * 40
    assert bright._process is None  # nothing runs before the first image
    assert torch.allclose(bright(images, prompts, metadata), expected)  # in three requests
    first = bright._process.pid
    assert bright._ask("GET", "/health", None, 60) == {
        "reward": "bright",
        "transformers": transformers.__version__,
    }
    os.kill(first, signal.SIGKILL)
    assert torch.allclose(bright(images, prompts, metadata), expected)
    second = bright._process.pid
    assert second != first
    # A failing request is tried again, in the same service, and then named.
    with pytest.raises(RewardError, match="bright.*3 attempts.*MemoryError: out of memory"):
        bright(images[:1], ["raise"], [{}])
    assert gone(second)
    # The check of every reward's answer holds for isolated ones.
    with pytest.raises(RewardError, match="bright.*nan.*'nan'"):
        bright(images[:1], ["nan"], [{}])
    third = bright._process.pid
    bright.close()
    assert gone(third)


def test_a_service_that_dies_or_hangs_is_named(bright, monkeypatch):
    image = torch.zeros(1, 3, 8, 8)
    bright(image, ["a cup"], [{}])
    monkeypatch.setattr(client, "ATTEMPTS", 1)
    with pytest.raises(RewardError, match="bright.*stays down after 1 attempts: RemoteDisconnected"):
        bright(image, ["die"], [{}])
    bright(image, ["a cup"], [{}])
    pid = bright._process.pid
    monkeypatch.setattr(client, "ANSWER", 0.5)
    with pytest.raises(RewardError, match="bright.*TimeoutError"):
        bright(image, ["hang"], [{}])
    assert gone(pid)


def test_a_service_runs_on_the_gpu_of_the_process_that_opened_the_reward(monkeypatch):
    opener = threading.get_ident()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # CUDA's current device is a thread's own; a thread that scores starts at the first.
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3 if threading.get_ident() == opener else 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    started = []
    monkeypatch.setattr(client, "interpreter", lambda name: "python")

    def start(command, env, **more):
        started.append(env["CUDA_VISIBLE_DEVICES"])
        raise RewardError("started")

    monkeypatch.setattr(client.subprocess, "Popen", start)
    reward = IsolatedReward(Bright)
    with ThreadPoolExecutor(1) as thread, pytest.raises(RewardError, match="started"):
        thread.submit(reward, torch.zeros(1, 3, 8, 8), ["a cup"], [{}]).result()
    assert started == ["7"]


def test_a_reward_that_cannot_be_loaded_is_named(trainers_python, monkeypatch):
    image = torch.zeros(1, 3, 8, 8)
    with pytest.raises(RewardError, match="unloadable.*cannot load it: OSError: weights.safetensors"):
        IsolatedReward(Unloadable)(image, ["x"], [{}])
    monkeypatch.setattr(client, "ATTEMPTS", 1)
    with pytest.raises(RewardError, match="crashing.*stays down.*ended before it was ready"):
        IsolatedReward(Crashing)(image, ["x"], [{}])


def test_a_missing_or_outdated_environment_names_reward_and_command(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "BUILT", tmp_path)
    reward = IsolatedReward(rewards.get_class("hps_v3"))
    with pytest.raises(RewardError, match="hps_v3.*missing.*snakemake .* results/environments/hps_v3"):
        reward(torch.zeros(1, 3, 8, 8), ["x"], [{}])
    (tmp_path / "hps_v3").mkdir()
    (tmp_path / "hps_v3" / environment.STAMP).write_text('{"requirements": "of another day"}')
    with pytest.raises(RewardError, match="hps_v3.*built from another hps_v3.txt"):
        reward(torch.zeros(1, 3, 8, 8), ["x"], [{}])


def test_the_service_ends_with_its_user(tmp_path):
    """Also when the user is killed and can clean nothing up."""
    script = (
        "import sys, time, torch\n"
        "from rewards.service import client\n"
        "from tests.isolated_rewards import Bright\n"
        "client.interpreter = lambda name: sys.executable\n"
        "reward = client.IsolatedReward(Bright)\n"
        "reward(torch.zeros(1, 3, 8, 8), ['x'], [{}])\n"
        "print(reward._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    user = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    service = int(user.stdout.readline())
    assert alive(service)
    user.kill()
    user.wait()
    user.stdout.close()
    assert gone(service)


def test_the_service_listens_on_loopback_only_and_refuses_what_is_no_message(bright):
    bright(torch.zeros(1, 3, 8, 8), ["x"], [{}])
    port = f"{bright._port:04X}"
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()
    ]
    assert f"0100007F:{port}" in listening  # 127.0.0.1
    assert not any(
        address.endswith(f":{port}") for address in listening if not address.startswith("0100007F")
    )
    image = torch.zeros(1, 3, 8, 8)
    whole = wire.pack(image, ["one"], [{}])
    token, path = {"Authorization": f"Bearer {bright._token}"}, "/score"

    def ask(body: bytes, headers: dict, path: str = path) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", bright._port, timeout=60)
        connection.request("POST", path, body, headers)
        status = connection.getresponse().status
        connection.close()
        return status

    assert ask(whole, token) == 200
    for body in (b"", b"\x80\x04pickle", wire.pack(torch.zeros(2, 3, 8, 8), ["one"], [{}])):
        assert ask(body, token) == 400
    for prompts in (None, 5, "one", [5], [None]):
        assert ask(wire.pack(image, prompts, [{}]), token) == 400
    for metadata in (None, [5], {"a": 1}):
        assert ask(wire.pack(image, ["one"], metadata), token) == 400
    nested = whole.replace(json.dumps(["one"]).replace('"', '\\"').encode(), b"[" * 7)
    assert nested != whole and ask(nested, token) == 400
    assert ask(whole, {}) == ask(whole, {"Authorization": "Bearer no"}) == 401
    assert ask(whole, {**token, "Host": "example.org"}) == 403
    assert ask(whole, token, "/other") == 404
    for length, status in (
        ("abc", 400),
        ("-1", 400),
        ("1" * 5000, 400),
        ("\u0663", 400),
        (str(1 << 31), 413),
    ):
        assert raw(bright, f"Content-Length: {length}\r\n") == status
    assert bright(image, ["still there"], [{}]).shape == (1,)


def raw(reward, headers: str) -> int:
    """Status of a request that no library would send."""
    with socket.create_connection(("127.0.0.1", reward._port), timeout=60) as connection:
        start = f"POST /score HTTP/1.1\r\nHost: 127.0.0.1:{reward._port}\r\n"
        connection.sendall(f"{start}Authorization: Bearer {reward._token}\r\n{headers}\r\n".encode())
        return int(connection.makefile("rb").readline().split()[1])


def test_a_score_that_hangs_blocks_no_other(bright):
    image = torch.zeros(1, 3, 8, 8)
    bright(image, ["a cup"], [{}])
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(bright._ask, "POST", "/score", wire.pack(image, ["hang"], [{}]), 3)
        time.sleep(0.3)
        assert bright._ask("POST", "/score", wire.pack(image, ["a cup"], [{}]), 2)["scores"] == [0]
        with pytest.raises(ServiceDown):
            hanging.result()


def test_a_message_survives_the_wire():
    images = torch.randint(0, 256, (3, 3, 5, 4)) / 255
    metadata = [{"include": [{"class": "cup", "count": 1}]}, {}, {"tag": "ü"}]
    found = wire.unpack(wire.pack(images, ["a", 'b "c"', "é"], metadata))
    assert torch.equal(found[0], images) and found[1:] == (["a", 'b "c"', "é"], metadata)


@pytest.mark.slow
def test_hps_v3_runs_with_another_transformers_than_the_trainer(hps_v3_environment, photographs):
    """The environment that the workflow builds, a small HPSv3, the interface of every other reward."""
    images, texts, metadata = photographs
    reward = rewards.get("hps_v3")
    scores = reward(images[:2], texts[:2], metadata[:2])
    health = reward._ask("GET", "/health", None, 60)
    assert health == {"reward": "hps_v3", "transformers": "4.45.2"}
    assert transformers.__version__ != health["transformers"]
    assert scores[0] != scores[1]
    reward.close()
