"""Pages of the report about how the results were made: configuration and provenance."""

from __future__ import annotations

from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

import yaml

from core.files import replacing
from evaluation.scores import RUN
from reporting.html import html, page, table
from reporting.results import Results
from reporting.table_formats import Text
from runs.configuration import RunConfig, load_run

SHOWN = ("evaluation", "instrument", "claims", "tables", "trajectories", "figures")


def _texts(*values: Any) -> list[Text]:
    return [Text(str(value)) for value in values]


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items()) or "none"


def _first_runs(results: Results) -> list[RunConfig]:
    """The first seed's configuration of each base, task and method; the others differ in the seed alone."""
    runs = results.scores.table[RUN].drop_duplicates().sort_values("seed", kind="stable")
    names = runs.drop_duplicates(["base", "task", "method"])["run"]
    return [load_run(results.run(name)) for name in sorted(names)]


def configuration(results: Results) -> str:
    """What differs between methods as a table, what they share beneath, and the settings' files."""
    configs, labels = _first_runs(results), results.settings.methods
    parts = []
    for base, task in dict.fromkeys((c.base, c.task) for c in configs):
        mine = [c for c in configs if (c.base, c.task) == (base, task)]
        settings = {c.method: c.training.model_dump(mode="json") for c in mine}
        common = {
            k: v
            for k, v in mine[-1].training.model_dump(mode="json").items()
            if all(s[k] == v for s in settings.values())
        }
        lines = [_texts("method", "algorithm", "parameters", "training")]
        for c in sorted(mine, key=lambda c: list(labels).index(c.method)):
            own = {k: v for k, v in settings[c.method].items() if k not in common}
            lines.append(_texts(labels[c.method], c.algorithm, _listed(c.parameters), _listed(own)))
        parts += [table(f"{base}, {task}", lines), f"<p>Shared: {escape(_listed(common))}.</p>"]
        task_settings = mine[0].task_settings.model_dump(mode="json")
        parts.append(f"<pre>{escape(yaml.safe_dump(task_settings, sort_keys=False))}</pre>")
    for config in {c.base: c for c in configs}.values():
        text = yaml.safe_dump(config.base_model.model_dump(mode="json"), sort_keys=False)
        parts.append(f"<h2>Base model {escape(config.base)}</h2><pre>{escape(text)}</pre>")
    for path in (Path(f"config/{name}.yaml") for name in SHOWN):
        parts.append(f"<h2>{path}</h2><pre>{escape(path.read_text())}</pre>")
    return page("Configuration", *parts)


def _versions(records: list[dict[str, Any]], key: str) -> list[list[Text]]:
    """Name, value and number of runs of every entry of a mapping that provenance holds."""
    counts = Counter((name, value) for r in records for name, value in r[key].items())
    return [_texts("name", "value", "runs"), *(_texts(*entry, n) for entry, n in sorted(counts.items()))]


def provenance(results: Results) -> str:
    """Commit, configuration and machine of every run; packages and weights with the number of their runs."""
    found = results.provenance
    columns = ["run", "commit", "uncommitted changes", "configuration", "processor", "accelerator"]
    lines = [_texts(*columns, "precision")]
    for run, record in found.items():
        git, machine = record["git"], record["hardware"]
        dirty = {True: "yes", False: "no", None: "unknown"}[git["dirty"]]
        head = (run, (git["commit"] or "none")[:12], dirty, record["config_hash"][:12])
        # Runs finished before the precision was written down are still rendered.
        precision = record.get("precision", "not recorded")
        lines.append(_texts(*head, machine["processor"], machine["accelerator"], precision))
    records = list(found.values())
    blocks = [
        ("Runs", lines),
        ("Packages", _versions(records, "packages")),
        ("Weights, sha256", _versions(records, "weights_sha256")),
    ]
    return html("Provenance", blocks, ["From provenance.json of every run; the files hold more."])


def render_pages(results: Results, out: Path) -> list[Path]:
    """``out`` with configuration.html and provenance.html."""
    pages = {"configuration": configuration, "provenance": provenance}
    with replacing(out) as temporary:
        temporary.mkdir()
        for name, make in pages.items():
            (temporary / f"{name}.html").write_text(make(results), encoding="utf-8")
    return [out / f"{name}.html" for name in pages]
