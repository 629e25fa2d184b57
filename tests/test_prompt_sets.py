"""Prompt sets: served by a local server, they come whole and as recorded, or not at all."""

import hashlib
import http.server
import json
import threading
from pathlib import Path

import pytest
import yaml

import prompt_sets
import rewards
from core.prompts import read
from core.settings import ConfigError
from prompt_sets import configuration
from prompt_sets.coco import CLASSES
from prompt_sets.counting import split
from prompt_sets.fetch import PromptSetError, fetch, make
from prompt_sets.parsers import PARSERS
from rewards.ocr import target_text

GENEVAL = [
    {"tag": "counting", "include": [{"class": "bench", "count": 4}], "prompt": "a photo of four benchs"},
    {
        "tag": "position",
        "include": [{"class": "tv", "count": 1}, {"class": "cow", "count": 1, "position": ["right of", 0]}],
        "exclude": [{"class": "tv", "count": 2}],
        "prompt": "a photo of a cow right of a tv",
    },
]
GENEVAL_2 = [
    {
        "prompt": f"{number} metal toys",
        "atom_count": 3,
        "vqa_list": [["How many toys are in the image?", number], ["Are the toys metal?", "Yes"]],
        "skills": ["count", "attribute"],
    }
    for number in ("two", "six")
]
FILES = {
    "geneval2": "".join(json.dumps(p) + "\n" for p in GENEVAL_2),
    "geneval": "\n".join(json.dumps(p) for p in GENEVAL * 2) + "\n",
    "quoted_lines": 'A mug that says "Fresh Brew"\n\nA door that says "No Entry\n',
    "lines": "A red colored car.\nSchönhausen,\x85in oil\n",
    "json_list": json.dumps(["A fish eating a pelican.", "Matutinal."]),
}
BAD = {
    "geneval2": (json.dumps({**GENEVAL_2[0], "skills": ["count"]}), "line 1: no GenEval 2 metadata"),
    "geneval": ('{"tag": "counting", "prompt": "x"}\n', "line 1"),
    "quoted_lines": ('a "b"\na sign "\n', "line 2.*'a sign \"'"),
    "json_list": ('{"a": 1}', "not a JSON list"),
}


def sha256(file: str) -> str:
    return hashlib.sha256(FILES.get(file, "").encode()).hexdigest()


def git_blob(file: str) -> str:
    content = FILES[file].encode()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address of a folder with one file per format; ``short`` promises more bytes than it sends."""
    folder = tmp_path_factory.mktemp("served")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, (text, _) in BAD.items():
        (folder / f"bad_{name}").write_text(text, encoding="utf-8")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def do_GET(self):
            if not self.path.startswith("/short"):
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"a red car\n")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def sets(tmp_path, monkeypatch, served):
    """Writes a config file with one set and makes it the one that is read."""

    def write(file, parser=None, sums="right", **more):
        known = {"right": {"sha256": sha256(file)}, "none": {}}
        source = {"url": f"{served}/{file}?{{revision}}", **(known[sums] if isinstance(sums, str) else sums)}
        entry = {"revision": "abc", "files": [source], "parser": parser or file, "licence": "MIT", **more}
        path = tmp_path / "prompt_sets.yaml"
        path.write_text(yaml.safe_dump({"mine": entry}))
        monkeypatch.setattr("prompt_sets.fetch.load", lambda: configuration.load(path))
        monkeypatch.setattr("prompt_sets.fetch.names", lambda: ["mine"])
        configuration.load.cache_clear()
        return tmp_path / "out" / "mine.jsonl"

    yield write
    configuration.load.cache_clear()


def left(out: Path) -> list[str]:
    return [p.name for p in out.parent.iterdir()] if out.parent.exists() else []


@pytest.mark.parametrize("file", FILES)
def test_a_set_is_fetched_checked_and_converted(sets, file):
    out = sets(file, unique=True, prompts=2)
    make("mine", out)
    prompts = read(out)
    assert len(prompts) == 2 and left(out) == ["mine.jsonl"]
    assert all({"tag", "prompt", "include", "exclude"} <= p.keys() for p in prompts)
    if file == "geneval":
        assert prompts[1]["include"][1]["position"] == ["right of", 0]
    if file == "geneval2":
        assert prompts[1]["tag"] == "atoms_3"
        asked = {"skill": "count", "question": "How many toys are in the image?", "answer": "six"}
        assert prompts[1]["questions"][0] == asked
        rewards.get_class("soft_tifa_gm").check_prompts(prompts)
    if file == "quoted_lines":
        assert prompts[0]["tag"] == "text" and '"Fresh Brew"' in prompts[0]["prompt"]


@pytest.mark.parametrize(
    "file, settings, message",
    [
        (
            "lines",
            {"sums": {"sha256": "0" * 64}},
            "not the file that was recorded.*sha256 0000.*what came has",
        ),
        ("lines", {"sums": {"git_blob": "0" * 40}}, "not the file that was recorded.*git_blob 0000.*has"),
        ("lines", {"prompts": 3}, "2 prompts.* says 3"),
        ("nothing", {"parser": "lines"}, "the server answered 404"),
        ("short", {"parser": "lines", "sums": "none"}, "10 of 1000 bytes"),
    ],
)
def test_what_is_not_as_recorded_leaves_nothing_behind(sets, served, file, settings, message):
    out = sets(file, **settings)
    with pytest.raises(PromptSetError, match=f"prompt set 'mine'(.|\n)*{message}") as error:
        make("mine", out)
    assert f"{served}/{file}?abc" in str(error.value)
    assert left(out) == []


@pytest.mark.parametrize("parser", BAD)
def test_a_line_that_is_no_prompt_is_named(sets, parser):
    out = sets(f"bad_{parser}", parser, sums="none")
    with pytest.raises(PromptSetError, match=f"'mine'.*bad_{parser}.*{BAD[parser][1]}"):
        make("mine", out)
    assert left(out) == []


def test_a_git_object_id_identifies_a_file(sets):
    blob = git_blob("lines")  # of content that is not ASCII
    out = sets("lines", sums={"git_blob": blob})
    make("mine", out)
    assert [p["prompt"] for p in read(out)] == FILES["lines"].strip().split("\n")


def test_a_file_without_a_recorded_sum_is_taken_and_its_sums_are_said(sets, capsys):
    out = sets("lines", sums="none")
    make("mine", out)
    said = capsys.readouterr().err
    assert len(read(out)) == 2 and sha256("lines") in said and git_blob("lines") in said


def test_an_unclosed_quote_reaches_to_the_end_of_the_line(sets):
    out = sets("quoted_lines")
    make("mine", out)
    assert [target_text(p["prompt"]) for p in read(out)] == ["Fresh Brew", "No Entry"]


def test_an_unreachable_server_is_named(sets, tmp_path, monkeypatch):
    out = sets("lines")
    entry = configuration.load(tmp_path / "prompt_sets.yaml")["mine"]
    closed = entry.files[0].model_copy(update={"url": "http://127.0.0.1:9/{revision}"})
    with pytest.raises(PromptSetError, match=r"'mine': http://127.0.0.1:9/abc: cannot be read"):
        fetch("mine", entry.model_copy(update={"files": [closed]}))
    assert left(out) == []


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"parser": "csv"}, r"mine: key 'parser' is 'csv'.*valid parsers: geneval"),
        ({"files": [{"url": "http://x/main/a", "sha256": None}]}, r"\{revision\}"),
        ({"files": [{"url": "http://x/{revision}", "sha256": "12"}]}, "a sha256 is 64 hexadecimal digits"),
        ({"files": [{"url": "http://x/{revision}", "git_blob": "12"}]}, "a git_blob is 40 hexadecimal"),
        ({"licens": "MIT"}, "unknown key 'licens'; valid keys: files, licence"),
    ],
)
def test_a_wrong_entry_names_file_set_and_key(tmp_path, entry, message):
    good = {
        "revision": "abc",
        "files": [{"url": "http://x/{revision}", "sha256": None}],
        "parser": "lines",
        "licence": "MIT",
    }
    path = tmp_path / "prompt_sets.yaml"
    path.write_text(yaml.safe_dump({"mine": good | entry}))
    with pytest.raises(ConfigError, match=message) as error:
        configuration.load(path)
    assert str(path) in str(error.value)


def test_the_real_entries_are_pinned():
    for name, entry in prompt_sets.load().items():
        assert len(entry.revision) == 40 and int(entry.revision, 16), name
        assert all(url.startswith("https://") and entry.revision in url for url in entry.urls()), name
        assert entry.licence and entry.parser in PARSERS
        assert all(file.recorded for file in entry.files) or name == "hpd"  # which no task uses


def test_the_counting_task_holds_every_count_and_no_test_prompt_is_trained():
    train, test = split()
    counts = {p["include"][0]["count"] for p in train}
    assert counts == set(range(1, 10)) and {p["include"][0]["count"] for p in test} == set(range(1, 12))
    assert not {p["prompt"] for p in train} & {p["prompt"] for p in test}
    assert len(CLASSES) == len(set(CLASSES)) == 80
    for p in train + test:
        (item,), (other,) = p["include"], p["exclude"]
        assert item["class"] == other["class"] in CLASSES and other["count"] == item["count"] + 1
    texts = {p["prompt"] for p in train + test}
    assert {"a photo of seven apples", "a photo of an airplane"} <= texts
    assert split() == (train, test)


def test_a_file_that_no_set_makes_is_refused():
    assert prompt_sets.set_of(Path("resources/prompts/ocr_train.jsonl")) is None
    with pytest.raises(ConfigError, match="drawbnch.jsonl is no prompt set.*drawbench"):
        prompt_sets.set_of(prompt_sets.FOLDER / "drawbnch.jsonl")
