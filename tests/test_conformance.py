"""The implementation against cases computed with the public reference implementations."""

import json
from pathlib import Path

import pytest

from methods import conformance

CASES = Path(__file__).parent / "reference_cases"


@pytest.mark.parametrize("path", sorted(CASES.glob("*.json")), ids=lambda p: p.stem)
def test_reference_cases(path):
    results = conformance.check_file(path)
    assert results
    assert [r for r in results if not r["ok"]] == []


def test_every_function_has_reference_cases():
    assert {path.stem for path in CASES.glob("*.json")} == set(conformance.FUNCTIONS)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"function": "diversity"}', '{"function": "diversity", "cases": [{"inputs": {}}]}']
)
def test_a_broken_file_fails_with_a_line(tmp_path, capsys, text):
    (tmp_path / "x.json").write_text(text)
    assert conformance.main([str(tmp_path)]) == 1
    assert [json.loads(line)["ok"] for line in capsys.readouterr().out.splitlines()] == [False]


def test_a_wrong_value_is_found(tmp_path, capsys):
    content = json.loads((CASES / "diversity.json").read_text())
    content["cases"][0]["expected"]["diversity"] += 0.001
    (tmp_path / "diversity.json").write_text(json.dumps(content))
    assert conformance.main([str(tmp_path)]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["key"] for line in lines if not line["ok"]] == ["diversity"]


def test_an_unknown_function_fails(tmp_path):
    (tmp_path / "x.json").write_text(
        json.dumps({"function": "no_such", "cases": [{"inputs": {}, "expected": {}}]})
    )
    assert conformance.main([str(tmp_path)]) == 1
