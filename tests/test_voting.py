"""People's votes: blind, none lost, counted as they should be."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.files import to_yaml
from core.settings import ConfigError
from core.tables import read_table
from evaluation import images
from reporting.claim_tests import People
from reporting.evidence import Evidence
from reporting.report import with_votes
from runs.resolve import resolve_run
from tests.browser import needs_browser, open_browser
from voting import count, session, store

ROOT = Path(__file__).parents[1]
METHODS = ["grpo", "gardo", "ddrl_synthetic"]
SEEDS = (1, 2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders with images of one grey level for each method."""
    folder = tmp_path_factory.mktemp("votes") / "runs"
    for level, method in enumerate(METHODS):
        for seed in SEEDS:
            config = resolve_run("tiny-sd3", "ocr", method, seed, {})
            run = folder / config.run
            (run / "images").mkdir(parents=True)
            (run / "run.yaml").write_text(to_yaml(config.content()))
            pixels = np.full((48 * 2, 32, 32, 3), 60 * level, np.uint8)
            path = images.path_of(run / "images", "ocr", config.training.iterations)
            images.write(path, pixels, k=2, suite="ocr", step=config.training.iterations, made_from="x")
    return folder


def serve(runs: Path, folder: Path, port: int, *more: str) -> tuple[subprocess.Popen, str]:
    """A server and its address with the token."""
    command = [sys.executable, "-m", "voting", "serve", "--runs", str(runs), "--methods", *METHODS]
    command += ["--folder", str(folder), "--port", str(port), *more]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        if line.startswith("http"):
            address = line.strip()
            break
    for _ in range(200):
        try:
            urllib.request.urlopen(address, timeout=5).read()
            return server, address
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


def ask(address: str, path: str, body: dict | None = None, **query: str):
    base, _, token = address.partition("?token=")
    url = f"{base}{path}?" + urllib.parse.urlencode({"token": token, **query})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        content = answer.read()
    return content if path.startswith("image") else json.loads(content)


def vote_all(address: str, voter: str, most: int) -> list[str]:
    """Pairs of which the votes were acknowledged."""
    stored = []
    try:
        while len(stored) < most:
            told = ask(address, "next", voter=voter)
            if "pair" not in told:
                break
            choice = store.CHOICES[len(stored) % 4]
            ask(address, "vote", {"voter": voter, "pair": told["pair"], "choice": choice})
            stored.append(told["pair"])
    except OSError:  # the server was killed
        pass
    return stored


def test_four_voters_lose_no_acknowledged_vote_although_the_server_is_killed(runs, tmp_path):
    """A thousand votes: 4 voters on 3 couples of methods x 2 seeds x 48 prompts."""
    acknowledged: dict[str, list[str]] = {f"voter{i}": [] for i in range(4)}
    for number, most in enumerate((90, 90, 10_000)):
        server, address = serve(runs, tmp_path, 5061 + number)

        def work(voter: str, address: str = address, most: int = most) -> None:
            acknowledged[voter] += vote_all(address, voter, most)

        threads = [threading.Thread(target=work, args=(voter,)) for voter in acknowledged]
        for thread in threads:
            thread.start()
        if number < 2:
            time.sleep(1.0)
            server.send_signal(signal.SIGKILL)  # while they vote
        for thread in threads:
            thread.join(300)
        server.kill()
        server.wait()
    votes = store.read(tmp_path)
    found = {(vote["voter"], vote["pair"]) for vote in votes}
    assert len(votes) == len(found) == 4 * 3 * 2 * 48 > 1000
    assert {(voter, pair) for voter, pairs in acknowledged.items() for pair in pairs} <= found


def add_votes(folder: Path, voter: str) -> None:
    for pair in range(100):
        store.append(folder, {"voter": voter, "pair": str(pair), "chosen": "tie"})


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    workers = [multiprocessing.Process(target=add_votes, args=(tmp_path, f"v{i}")) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(store.read(tmp_path)) == 400


def test_half_a_line_is_no_vote_and_takes_no_other_with_it(tmp_path):
    store.append(tmp_path, {"voter": "a", "pair": "1", "chosen": "tie"})
    with open(tmp_path / store.VOTES, "ab") as file:
        file.write(b'12345678 {"voter": "a", "pa')
    store.append(tmp_path, {"voter": "a", "pair": "2", "chosen": "tie"})
    store.append(tmp_path, {"voter": "a", "pair": "2", "chosen": "first"})  # a second one does not count
    assert [(v["pair"], v["chosen"]) for v in store.read(tmp_path)] == [("1", "tie"), ("2", "tie")]


def test_the_server_answers_nobody_else_and_names_no_method(runs, tmp_path):
    server, address = serve(runs, tmp_path, 5071)
    try:
        told = ask(address, "next", voter="ann")
        assert set(told) == {"done", "of", "pair", "prompt"}
        sides = [ask(address, f"image/{told['pair']}/{side}", voter="ann") for side in session.SIDES]
        assert sides[0] != sides[1] and all(data.startswith(b"\x89PNG") for data in sides)
        assert not any(method.encode() in data for method in METHODS for data in sides)
        for query, status in (
            ({"path": "next", "voter": "a b"}, 400),
            ({"path": "next", "voter": "../x"}, 400),
            ({"path": "image/nope/left", "voter": "ann"}, 404),
            ({"path": f"image/{told['pair']}/up", "voter": "ann"}, 404),
            ({"path": "vote", "body": {"voter": "ann", "pair": told["pair"], "choice": "grpo"}}, 400),
            ({"path": "vote", "body": {"voter": "ann", "pair": "x", "choice": "tie"}}, 404),
            ({"path": "vote", "body": {"voter": 3}}, 422),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(address, **query)
            assert refused.value.code == status
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(address.partition("?")[0] + "?token=x", "next", voter="ann")
        other = urllib.request.Request(address, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(other)
    finally:
        server.kill()
        server.wait()


def test_sides_are_drawn_for_each_voter_and_stay():
    pair = session.Pair("x", "b", "t", "s", 1, 0, 0, "p", "1", "2", 0, 0, "m", "n")
    sides = [pair.shown(f"voter{i}") for i in range(200)]
    assert 60 < sides.count(("first", "second")) < 140
    assert sides == [pair.shown(f"voter{i}") for i in range(200)]


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"methods": ["grpo", "nope"]},
            "holds no images of 'nope' on tiny-sd3, ocr; valid: ddrl_synthetic, gardo",
        ),
        ({"methods": ["grpo"], "rivals": ["grpo"]}, "'grpo' and 'grpo' have no two runs"),
        ({"per_prompt": 3}, "holds 2 images of a prompt; 3 are wanted"),
    ],
)
def test_what_cannot_be_voted_on_is_said(runs, change, message):
    wanted = {"folder": runs, "base": "tiny-sd3", "task": "ocr", "methods": METHODS, "per_prompt": 1}
    with pytest.raises(ConfigError, match=message):
        session.make(**{**wanted, **change})


def made_up(chosen: dict[tuple[str, str], dict[str, int]], voters: int = 2) -> pd.DataFrame:
    """Votes with so many of each choice for each two methods, spread over prompts and voters."""
    rows = []
    for (a, b), counts in chosen.items():
        choices = [name for name, number in counts.items() for _ in range(number)]
        for i, name in enumerate(choices):
            for voter in range(voters):
                place = dict(zip(count.PLACE, ("tiny-sd3", "ocr", "ocr", 1, i, 0), strict=True))
                rows.append(
                    {"voter": f"v{voter}", **place, "method_a": a, "method_b": b, "chosen": name, "time": 0.0}
                )
    return pd.DataFrame(rows, columns=count.COLUMNS)


def test_delta_vote_counts_votes_for_the_second_minus_those_for_the_first():
    votes = made_up({("ddrl", "grpo"): {"a": 60, "b": 20, "tie": 15, "bad": 5}})
    (row,) = count.delta_votes(votes).to_dict("records")
    assert row["delta_vote"] == pytest.approx(20 - 60) and row["votes"] == 200
    assert row["low"] < -40 < row["high"] < 0 and row["share_tie"] == pytest.approx(0.15)


def test_strengths_are_those_that_the_votes_were_drawn_from():
    """Three methods with log strengths 1, 0, -1: P(a beats b) = sigmoid(s_a - s_b)."""
    p = {1: 1 / (1 + np.exp(-1)), 2: 1 / (1 + np.exp(-2))}
    n = 1000
    votes = made_up(
        {
            ("x", "y"): {"a": round(n * p[1]), "b": n - round(n * p[1])},
            ("y", "z"): {"a": round(n * p[1]), "b": n - round(n * p[1])},
            ("z", "x"): {"b": round(n * p[2]), "a": n - round(n * p[2])},
        },
        voters=1,
    )
    found = count.strengths(votes).set_index("method")
    assert found.index.tolist() == ["x", "y", "z"]
    assert found["strength"].to_numpy() == pytest.approx([1, 0, -1], abs=0.02)
    assert ((found["low"] <= [1, 1e-9, -1]) & ([1, -1e-9, -1] <= found["high"])).all()


def test_a_claim_is_judged_by_people_where_enough_have_voted():
    rows = pd.DataFrame({"method": ["ddrl", "grpo"], "metric": "x", "role": "unseen", "seed": 1, "own": True})
    votes = made_up({("grpo", "ddrl"): {"a": 20, "b": 60, "tie": 20}})
    votes = pd.concat([votes, votes.assign(seed=2)])
    blocks = [(("tiny-sd3", "ocr"), Evidence(rows)), (("tiny-sd3", "geneval"), Evidence(rows))]
    for least, expected in (
        (People(votes=400, voters=2), {1: -40.0, 2: -40.0}),
        (People(votes=401, voters=2), {}),
    ):
        (_, on_ocr), (_, elsewhere) = with_votes(blocks, votes, least)
        assert on_ocr.votes("people", "ddrl", "grpo") == expected  # votes for grpo minus those for ddrl
        assert elsewhere.votes("people", "ddrl", "grpo") == {}
    few_voters = with_votes(blocks, votes, People(votes=1, voters=3))[0][1]
    assert few_voters.votes("people", "ddrl", "grpo") == {}
    assert with_votes(blocks, None, People(votes=1, voters=1)) == blocks


def test_agreement_is_cohens_kappa():
    """50 pairs, 35 alike: 20 both a, 15 both b; 5 and 10 apart (the textbook's example): kappa 0.4."""
    table = [("a", "a")] * 20 + [("a", "b")] * 5 + [("b", "a")] * 10 + [("b", "b")] * 15
    rows = []
    for i, choices in enumerate(table):
        for voter, chosen in zip(("v", "w"), choices, strict=True):
            place = dict(zip(count.PLACE, ("tiny-sd3", "ocr", "ocr", 1, i, 0), strict=True))
            rows.append(
                {"voter": voter, **place, "method_a": "m", "method_b": "n", "chosen": chosen, "time": 0.0}
            )
    (found,) = count.agreement(pd.DataFrame(rows, columns=count.COLUMNS))
    assert (found.pairs, found.equal) == (50, 0.7) and found.kappa == pytest.approx(0.4)


@needs_browser
def test_people_vote_by_key_and_by_touch_and_go_on_where_they_were(runs, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    folder = tmp_path / "votes"
    server, address = serve(runs, folder, 5081)
    driver = open_browser(tmp_path / "profile")
    try:
        wait = WebDriverWait(driver, 30)

        def at(name: str):
            return driver.find_element(By.ID, name)

        def counted(number: int) -> None:
            wait.until(lambda _: at("count").text == f"{number} of 288" and "sign" in at("prompt").text)
            wait.until(
                lambda d: d.execute_script("return document.getElementById('right-image').naturalWidth > 0")
            )

        driver.get(address)
        at("name").send_keys("ann", Keys.ENTER)
        counted(0)
        page = driver.find_element(By.TAG_NAME, "body")
        for done, key in enumerate(
            (Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_DOWN), start=1
        ):
            page.send_keys(key)
            counted(done)
        for done, name in enumerate(("left", "right", "tie", "bad"), start=5):
            at(name).click()
            counted(done)
        assert not any(method in driver.page_source for method in METHODS)
        driver.refresh()
        counted(8)
        driver.save_screenshot(str(tmp_path / "page.png"))
        severe = [e["message"] for e in driver.get_log("browser") if e["level"] == "SEVERE"]
        assert not [message for message in severe if "favicon" not in message]
    finally:
        driver.quit()
        server.kill()
        server.wait()
    votes = store.read(folder)
    assert [vote["chosen"] for vote in votes][2::4] == ["tie", "tie"] and len(votes) == 8
    for vote, side in zip(votes[:2], (0, 1), strict=True):
        pair = session.load(folder).pairs[vote["pair"]]
        assert vote["chosen"] == pair.shown("ann")[side]
    done = subprocess.run(
        [sys.executable, "-m", "voting", "close", "--folder", str(folder), "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    assert len(read_table(tmp_path / "votes.parquet")) == 8
    assert "Bradley–Terry" in (folder / "strength_tiny-sd3_ocr.md").read_text()
