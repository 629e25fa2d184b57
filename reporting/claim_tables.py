"""Judged claims as tables with a caption; knows nothing about scores."""

from __future__ import annotations

from typing import Any

from reporting.claim_tests import BY_CONSTRUCTION, MIXTURE, UNTESTABLE, Verdict
from reporting.table_formats import DASH, Text, decimal


def _place(entry: dict[str, Any], bases: set[str]) -> str:
    one_base = len(bases) == 1 or entry["base"] == MIXTURE
    return entry["task"] if one_base else f"{entry['base']}, {entry['task']}"


def to_tables(entries: list[dict[str, Any]]) -> list[tuple[str, list[list[Text]]]]:
    """An overview with one line per claim, and every test beneath."""
    bases = {e["base"] for e in entries} - {None, MIXTURE}
    judged = [e for e in entries if e["tests"]]
    places = list(dict.fromkeys(_place(e, bases) for e in judged))
    overview = [[Text(t) for t in ("claim", *places, "not judged")]]
    for name in dict.fromkeys(e["id"] for e in entries):
        mine = [e for e in entries if e["id"] == name]
        cells = {_place(e, bases): _cell(e) for e in mine if e["tests"]}
        line = [cells.get(place, Text("")) for place in places]
        overview.append([Text(f"{name}: {mine[0]['statement']}"), *line, Text(mine[0].get("missing", ""))])
    header = ("claim", "where", "test", "effect", "resolvable", "seeds", "verdict")
    details = [[Text(t) for t in header]]
    for entry, test in ((e, t) for e in judged for t in e["tests"]):
        low, high = (decimal(v, 3) for v in test["interval"])
        effect = Text(decimal(test["effect"], 3), "", f" [{low}, {high}]")
        head = [Text(entry["id"]), Text(_place(entry, bases)), Text(test["test"]), effect]
        least = Text(_resolvable(test))
        details.append([*head, least, Text(str(test["seeds"])), Text(test["verdict"])])
    return [("Verdicts", overview), ("Tests", details)]


def _resolvable(tested: dict[str, Any]) -> str:
    return DASH if tested["resolvable"] is None else decimal(tested["resolvable"], 3)


def _cell(entry: dict[str, Any]) -> Text:
    """A verdict of the overview, with the smallest effect that could have decided it."""
    if entry["verdict"] in (UNTESTABLE, BY_CONSTRUCTION):
        return Text(entry["verdict"])
    return Text(entry["verdict"], "bold", f" (resolves {_resolvable(entry)})")


def _named(texts: dict[str, str]) -> str:
    return "; ".join(f"{name} ({text})" for name, text in texts.items())


def caption(entries: list[dict[str, Any]], level: float) -> list[str]:
    """Counts, how the tests are made, what stands outside the counts, and what the instrument says."""
    counts = {v: sum(e["verdict"] == v for e in entries) for v in Verdict.__args__}
    sentences = [
        "; ".join(f"{verdict}: {count}" for verdict, count in counts.items()) + ".",
        f"Differences are paired by seed; intervals are {level:.0%} bootstrap intervals over seeds and over "
        "the prompts within a seed, all seeds sharing the same prompts. With three seeds an interval over "
        "seeds alone reaches from the least to the greatest value. Tests are not corrected for their number. "
        "A claim is reproduced where every test is; verdicts are computed.",
        "Resolvable: the smallest effect that the seeds' spread can tell from zero, half the width of "
        f"Student's {level:.0%} interval over seeds; beside a verdict, that of the test which decided.",
    ]
    bases = {e["base"] for e in entries} - {None, MIXTURE}
    placed = {_place(e, bases): e for e in entries if e.get("instrument")}
    if placed:
        said = "; ".join(f"{place}: {e['instrument']}" for place, e in placed.items())
        sentences.append(f"Instrument (instrument.md): {said}.")
    untestable = {p: e["reason"] for p, e in placed.items() if e["instrument"].startswith("not testable")}
    if untestable:
        sentences.append(f"Not testable: {_named(untestable)}.")
    constructed = {e["id"]: e["by_construction"] for e in entries if e["by_construction"]}
    if constructed:
        sentences.append(f"Holds by construction, shown and not counted: {_named(constructed)}.")
    caveats = {e["id"]: e["caveat"] for e in entries if e["caveat"]}
    if caveats:
        sentences.append(f"To be read with care: {_named(caveats)}.")
    return sentences
