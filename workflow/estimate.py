"""What a configuration would do and need: ``python -m workflow.estimate --configfile FILE``. Starts nothing.

Jobs are those of a dry run, so what is finished is left out. Hours rest on the ``step_cost`` of each task, a
measured or published time of one gradient step; where nobody has measured one, no number is made up.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from snakemake.utils import update_config

import prompt_sets
from base_models.requirements import is_hub_id
from core.command import run_command
from core.settings import read_yaml
from rewards.published import hub
from runs.configuration import RunConfig
from runs.main_config import check_main
from workflow.plan import RESULTS, Plan, make_plan
from workflow.readiness import Jobs, images_of, missing_base_models, needed_bytes, opened, plugins

WIDTH = 100  # columns of a screen
DATA_FILE = re.compile(r"(?P<base>.+?)__(?P<task>.+)__(?P<kind>synthetic|real)\d+")


def planned(configfiles: list[str], target: str) -> tuple[Counter, Jobs]:
    """Jobs per rule of a dry run, and what they need. Raises ``ValueError`` with Snakemake's message."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--summary"]
    command += ["--configfile", *configfiles, "--", target]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(configfiles)}: no plan for {target!r}: {one_line(done.stderr)}")
    counts, jobs, seen = Counter(), [], set()
    for line in done.stdout.splitlines()[1:]:
        output, _, rule, *_, state = line.split("\t")
        if state == "no update":
            continue
        wildcards = _wildcards(rule, Path(output))
        key = (rule, *wildcards.values()) if wildcards else (rule,)
        if key not in seen:
            seen.add(key)
            counts[rule] += 1
            jobs.append((rule, wildcards))
    return counts, Jobs.of(jobs)


def one_line(said: str) -> str:
    """What Snakemake says of a failure below the title of its last exception."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    titles = [number for number, line in enumerate(lines) if re.match(r"\w+(Exception|Error)\b.*:$", line)]
    return "; ".join(lines[titles[-1] + 1 :] if titles else lines) or "Snakemake gave no reason"


def _wildcards(rule: str, output: Path) -> dict[str, str]:
    if rule == "data":
        return DATA_FILE.fullmatch(output.stem).groupdict()
    if rule == "prompts":
        return {"set": output.stem}
    if output.parts[:2] == (RESULTS.name, "runs"):
        return {"run": output.parts[2]}
    return {"file": output.stem} if rule == "log_run" else {}


def training_table(plan: Plan, jobs: Jobs) -> pd.DataFrame:
    """One row per base model and task: gradient steps, and device hours where a step's time is known."""
    rows = []
    for name in sorted(jobs.train):
        run = plan.trained[name]
        cost, steps = plan.tasks[run.task].step_cost, run.training.iterations * run.training.gradient_steps
        if not steps:
            continue
        row = {"base": run.base, "task": run.task, "runs": 1, "steps": steps, "device": "-"}
        row |= {"s/step": None, "source": "not measured"}
        if cost and cost.seconds:
            row["device"] = "GPU" if cost.gpus else "CPU"
            row["s/step"] = cost.seconds * max(cost.gpus, 1) * _scale(plan, run)
            row["source"] = f"{cost.source} ({cost.hardware})"
        rows.append(row)
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows).astype({"s/step": float})
    same = ["base", "task", "device", "s/step", "source"]
    table = table.groupby(same, dropna=False, sort=False)[["runs", "steps"]].sum().reset_index()
    table["hours"] = table["steps"] * table["s/step"] / 3600
    return table[["base", "task", "runs", "steps", "s/step", "hours", "device", "source"]]


def _scale(plan: Plan, run: RunConfig) -> float:
    """Images of one gradient step over those that the task's step time is for: time grows with images."""
    own, c = plan.tasks[run.task].training, run.training
    theirs = own["prompts_per_iteration"] * own["group_size"] / own["gradient_steps"]
    return c.prompts_per_iteration * c.group_size / c.gradient_steps / theirs


def hours_lines(table: pd.DataFrame) -> list[str]:
    """Sums of a training table, and what they leave out."""
    if table.empty:
        return []
    known = table.dropna(subset="s/step").groupby("device")["hours"].sum()
    lines = [f"in all {hours:,.1f} {device}-hours" for device, hours in known.items()]
    unknown = int(table.runs[table["s/step"].isna()].sum())
    return lines + ([f"without {unknown} runs whose step time nobody has measured"] if unknown else [])


def _lines(title: str, lines: list[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines or ["nothing"])]


def _wrapped(title: str, names: Iterable[str]) -> list[str]:
    """``title: a, b, c`` in lines of a screen's width; nothing for no names."""
    listed = ", ".join(names)
    return (
        textwrap.wrap(f"{title}: {listed}", WIDTH - 2, subsequent_indent="  ", break_on_hyphens=False)
        if listed
        else []
    )


def prompt_summary(jobs: Jobs) -> list[str]:
    fetched, sizes = prompt_sets.load(), {}
    for name in sorted(jobs.prompts):
        sizes[name] = prompt_sets.size(prompt_sets.FOLDER / f"{name}.jsonl") or "?"
    groups = {"to fetch": fetched.keys(), "to generate": sizes.keys() - fetched.keys()}
    return [
        line
        for title, names in groups.items()
        for line in _wrapped(title, (f"{name} ({size})" for name, size in sizes.items() if name in names))
    ]


def weight_summary(plan: Plan, jobs: Jobs) -> list[str]:
    """Base models and rewards by what is to be done for them; ``weight_lines`` says how."""
    bases = {run.base: run.base_model for run in opened(plan, jobs).values()}
    missing = missing_base_models(plan, jobs, jobs_run_here=False)
    todo: dict[str, list[str]] = {"base models at hand": [], "base models missing": []}
    for name, base in bases.items():
        absent = any(f"/{name}.yaml:" in line for line in missing)
        if absent or is_hub_id(base.path):
            todo["base models missing" if absent else "base models at hand"].append(name)
    for plugin in plugins(plan, jobs):
        states = [_state(source, plugin.name).partition(":")[0] for source in plugin.hub]
        for state in ("no commit pinned", "missing", "at hand"):
            if state in states:
                todo.setdefault(f"rewards and encoders {state}", []).append(plugin.name)
                break
    gated = [source.repository for plugin in plugins(plan, jobs) for source in plugin.hub if source.gated]
    own = [base.licence for base in bases.values() if is_hub_id(base.path)]
    todo["licences to accept"] = list(dict.fromkeys([*own, *gated]))
    return [line for title, names in todo.items() for line in _wrapped(title, names)]


def _drawn(table: pd.DataFrame) -> list[str]:
    text = table.to_string(index=False, na_rep="-", float_format="{:,.1f}".format)
    return [] if table.empty else text.splitlines()


def weight_lines(plan: Plan, jobs: Jobs) -> list[str]:
    """Base models and rewards that come from a hub: which licence, whether they are here, how to get them."""
    lines = missing_base_models(plan, jobs, jobs_run_here=False)
    for run in opened(plan, jobs).values():
        base = run.base_model
        if is_hub_id(base.path) and not any(base.path in line for line in lines):
            lines.append(f"{base.label}: {base.path}, licence {base.licence}, at hand")
    users: dict[hub.HubFiles, list[str]] = {}
    for plugin in plugins(plan, jobs):
        for source in plugin.hub:
            users.setdefault(source, []).append(plugin.name)
    for source, names in users.items():
        gate = ", to be accepted there" if source.gated else ""
        lines.append(
            f"{', '.join(names)}: {source.page}, licence {source.licence}{gate}, {_state(source, names[0])}"
        )
    return lines


def _state(source: hub.HubFiles, user: str) -> str:
    try:
        hub.pinned(source)
    except ValueError:
        return "no commit pinned: name one in config/weights.yaml"
    try:
        hub.folder(source)
    except ValueError:
        return f"missing: python -m rewards fetch {user}"
    return "at hand"


def prompt_lines(jobs: Jobs) -> list[str]:
    fetched, lines = prompt_sets.load(), []
    for name in sorted(jobs.prompts):
        size = prompt_sets.size(prompt_sets.FOLDER / f"{name}.jsonl")
        count = f"{size} prompts" if size else "number of prompts not known"
        if name not in fetched:
            lines.append(f"{name}: generated, {count}")
            continue
        entry = fetched[name]
        lines.append(f"{name}: {entry.licence}, {count}")
        for file, url in zip(entry.files, entry.urls(), strict=True):
            lines.append(f"    {url}, {' and '.join(file.recorded) or 'no sum'} recorded")
    return lines


def report(plan: Plan, counts: Counter, jobs: Jobs, title: str, details: bool = False) -> str:
    """The plan as text: one screen, or with ``details`` every address, licence and command."""
    table = training_table(plan, jobs)
    images = sum(images_of(plan, plan.runs[name]) for name in jobs.evaluate)
    folder = RESULTS if RESULTS.exists() else RESULTS.absolute().parent
    needed, free = needed_bytes(plan, jobs) / 1e9, shutil.disk_usage(folder).free / 1e9
    prompts = prompt_lines(jobs) if details else prompt_summary(jobs)
    weights = weight_lines(plan, jobs) if details else weight_summary(plan, jobs)
    return "\n".join(
        [
            title,
            *_lines("Jobs", _wrapped("per rule", (f"{n} {rule}" for rule, n in sorted(counts.items())))),
            *_lines("Training", _drawn(table) + hours_lines(table)),
            *_lines("Evaluation", [f"{images:,} images to sample and score; time not measured"]),
            *_lines("Disk", [f"{needed:.1f} GB of results, {free:.1f} GB are free"]),
            *_lines("Prompt sets", prompts),
            *_lines("Weights from a hub", weights),
            *([] if details else ["", "Addresses, licences and commands: --details"]),
        ]
    )


def _estimate(arguments) -> None:
    config = read_yaml(Path("config/config.yaml"))
    for path in arguments.configfile:
        update_config(config, read_yaml(Path(path)))
    config = check_main(config)
    counts, jobs = planned(arguments.configfile, arguments.target)
    names = " and ".join(arguments.configfile)
    title = f"Plan of {names} for {arguments.target}"
    print(report(make_plan(config), counts, jobs, title, arguments.details))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.estimate", description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", nargs="+", default=["config/config.yaml"])
    parser.add_argument("--target", default="results/tables")
    parser.add_argument("--details", action="store_true", help="every address, licence and command")
    parser.set_defaults(call=_estimate)
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
