"""Overlap of prompt sets: none in what is shipped, and found where there is some."""

import json
from pathlib import Path

import pytest

import prompt_sets
from evaluation.configuration import load_evaluation
from prompt_sets.__main__ import main
from prompt_sets.counting import GENERATED
from prompt_sets.overlap import open_set, overlap
from runs.config_files import load_task
from scenes.composition import composition

OWN = {"paper_video_image", "paper_video_real"}  # their prompts are the user's
TASKS = sorted({path.stem for path in Path("config/tasks").glob("*.yaml")} - OWN)
SUITES = load_evaluation().suites


def item(name: str, count: int = 1, **more) -> dict:
    return {"class": name, "count": count, **more}


def objects(text: str, *include: dict, tag: str = "two_object") -> dict:
    return {"tag": tag, "prompt": text, "include": list(include)}


@pytest.mark.parametrize("task", [t for t in TASKS if prompt_sets.set_of(load_task(t).prompts) is None])
def test_no_task_is_tested_on_what_it_trains(task):
    settings = load_task(task)
    train = open_set(settings.prompts)
    for suite in settings.suites:
        found = overlap(train, open_set(SUITES[suite].prompts))
        assert found and not any(o.same_text or o.same_composition for o in found.values()), suite


def test_the_generated_counting_sets_share_nothing():
    train, test = (GENERATED[f"counting_{part}"]() for part in ("train", "test"))
    assert overlap(train, test)["counting"].same_composition == 0


@pytest.mark.parametrize(
    "first, second, same",
    [
        ([item("cup"), item("cow")], [item("cow"), item("cup")], True),
        ([item("cup", color="red")], [item("cup")], False),
        ([item("cup", 2)], [item("cup", 3)], False),
        (
            [item("cup", color="red"), item("cow", color="blue")],
            [item("cup", color="blue"), item("cow", color="red")],
            False,
        ),
        (
            [item("cup"), item("cow", position=["right of", 0])],
            [item("cow"), item("cup", position=["left of", 0])],
            True,
        ),
        (
            [item("cup"), item("cow", position=["above", 0])],
            [item("cow"), item("cup", position=["above", 0])],
            False,
        ),
        ([item("cup"), item("cow", position=["above", 0])], [item("cup"), item("cow")], False),
    ],
)
def test_a_composition_is_free_of_order(first, second, same):
    assert (composition(objects("a", *first)) == composition(objects("b", *second))) is same


FILES = {  # training set, test set, and by tag: test prompts, with a trained text, with a trained composition
    "geneval.jsonl": (
        [
            objects("a photo of a cup and a cow", item("cup"), item("cow")),
            objects("a photo of a cow", item("cow"), tag="single_object"),
        ],
        [
            objects("a photo of a cow and a cup", item("cow"), item("cup")),
            objects("A photo of  a cow", item("cow"), tag="single_object"),
            objects("a photo of two cows", item("cow", 2), tag="counting"),
        ],
        {"two_object": (1, 0, 1), "single_object": (1, 1, 1), "counting": (1, 0, 0)},
    ),
    "ocr.txt": (
        'A mug that says "Fresh Brew"\n',
        'A door with "fresh brew" on it\nA door with "No Entry" on it\n',
        {"text": (2, 0, 1)},
    ),
    "captions.txt": (
        "A red colored car.\nAn oil painting\n",
        "a red, colored car\nan oil painting\nA sketch\n",
        {"prompt": (3, 1, 2)},
    ),
    "benchmark.json": ('["A fish"]', '["a fish!", "A pelican"]', {"prompt": (2, 0, 1)}),
}


@pytest.fixture
def files(tmp_path):
    """Writes the two sets of a format; returns their paths."""

    def write(name: str) -> list[str]:
        paths = []
        for part, value in zip(("train", "test"), FILES[name], strict=False):
            path = tmp_path / f"{part}_{name}"
            path.write_text(value if isinstance(value, str) else "".join(json.dumps(p) + "\n" for p in value))
            paths.append(str(path))
        return paths

    return write


def command(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["prompt_sets", "overlap", *arguments])
    return main()


@pytest.mark.parametrize("name", FILES)
def test_published_formats_are_compared_and_nothing_is_written(files, name, monkeypatch, capsys, tmp_path):
    train, test = files(name)
    before = sorted(tmp_path.iterdir())
    found = overlap(open_set(train), open_set(test))
    assert {t: (o.prompts, o.same_text, o.same_composition) for t, o in found.items()} == FILES[name][2]
    assert command(monkeypatch, train, test) == 0
    output = capsys.readouterr().out
    for tag, counts in FILES[name][2].items():
        assert [tag, *map(str, counts)] in [line.split() for line in output.splitlines()]
    for tested, trained in (pair for o in found.values() for pair in o.examples):
        assert f"tested {tested!r}, trained {trained!r}" in output
    assert command(monkeypatch, train, test, "--fail") == 1
    assert f"are trained by {train}" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_sets_without_overlap_pass(monkeypatch, capsys):
    assert command(monkeypatch, "counting_train", "counting_test", "--fail") == 0
    assert ["all", "150", "0", "0"] == capsys.readouterr().out.splitlines()[-1].split()


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "neither a file nor a prompt set; sets: counting_test"),
        ('{"prompt": "x"}\n', "set.jsonl, line 1: key 'tag' is missing"),
        (
            '{"tag": "a", "prompt": "x", "include": [{"class": "cow"}]}\n',
            "set.jsonl, line 1: key 'include.0.count' is missing",
        ),
    ],
)
def test_what_is_no_prompt_set_is_named(tmp_path, text, message):
    path = tmp_path / "set.jsonl"
    if text:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        open_set(str(path))


def test_a_set_that_is_not_fetched_yet_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("prompt_sets.overlap.FOLDER", tmp_path)
    with pytest.raises(ValueError, match="'drawbench' is not here yet: python -m prompt_sets make drawbench"):
        open_set("drawbench")
