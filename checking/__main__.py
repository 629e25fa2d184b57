"""``python -m checking PATH``: does this adapter, checkpoint or folder of images hack the task's reward?

Scores it beside the base model on the same prompts and noise, and writes a report as HTML and JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from core.command import (
    count,
    default_device,
    device,
    positive,
    run_command,
    seed,
    set_threads,
    start_quickly,
    threads,
)


def _check(arguments) -> None:
    import numpy as np

    from checking import page
    from checking.judged import Check
    from checking.verdict import MEANING, judge, suite_scores
    from core.files import write_json, write_text
    from core.prompts import read as read_prompts
    from runs.config_files import load_task
    from training.provenance import git_state

    set_threads(arguments.threads)
    quiet()
    name = arguments.name or default_name(arguments.path)
    check = Check(
        arguments.path,
        arguments.base,
        arguments.task,
        name,
        arguments.seed,
        arguments.images_per_prompt,
        arguments.device or default_device(),
        arguments.configfile,
        arguments.alpha,
    )
    base, judged = check.evaluate()
    applied = applied_as(judged)
    settings, task = check.settings(), load_task(check.task)
    judgement = judge(base, judged, settings, task.proxy_metric)
    truth = next((line.metric for line in judgement.lines if line.role == "gold"), None)
    scores = suite_scores(base, settings.own), suite_scores(judged, settings.own)
    order = page.gaps(*scores, task.proxy_metric, truth)
    prompts = read_prompts(Path(settings.suites[settings.own].prompts))
    places = np.unique(np.linspace(0, len(prompts) - 1, page.SPREAD).astype(int))
    spread = np.stack([places, np.zeros_like(places)], 1)
    metrics = [metric for metric in (task.proxy_metric, truth) if metric]
    shown = [
        page.pairs(base, judged, settings.own, w, prompts, metrics) for w in (order[: page.GAPS], spread)
    ]
    commit = (git_state()["commit"] or "no commit")[:9]
    made = f"python -m checking, {commit}; {check.path} ({check.kind}) on {check.base}, task {check.task}"
    made += f". {applied}" if applied else ""
    title = f"{name}: does it hack {task.label}?"
    content = {"run": check.run, "path": str(check.path), "applied": applied} | judgement.content()
    write_json(check.report / "report.json", content)
    write_text(check.report / "report.html", page.write(title, judgement, *shown, made))
    print(f"{judgement.verdict}: {MEANING[judgement.verdict]}")
    for line in judgement.lines:
        print(f"  {line.metric:22} {line.base:8.3f} -> {line.judged:8.3f}  {line.change}")
    if applied:
        print(applied)
    print(check.report / "report.html")


def applied_as(folder: Path) -> str | None:
    """In a sentence, how an adapter was applied; None for what is no adapter."""
    found = json.loads((folder / "provenance.json").read_text())["checked"]
    if "layers" not in found:
        return None
    text = f"The adapter changes {found['layers']} layers by {found['relative_change']:.2g} of their norm"
    if not found["scale_known"]:
        text += "; its file says no scale, so it is applied at alpha = rank (--alpha gives another)"
    return text + "."


def default_name(path: Path) -> str:
    """The file's name without its suffix, the folder's whole, with what no name may hold as dashes."""
    path = path.resolve()
    return (
        re.sub(r"[^A-Za-z0-9.-]+", "-", path.stem if path.is_file() else path.name).strip(".-") or "checked"
    )


def quiet() -> None:
    """Libraries report every part that they open, and every one for which an adapter has nothing."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def main() -> int:
    start_quickly()
    parser = argparse.ArgumentParser(prog="python -m checking", description=__doc__)
    parser.add_argument("path", type=Path, help="adapter, checkpoint or folder of images")
    parser.add_argument(
        "--base", default="tiny-sd3", help="a file of config/base_models; default: %(default)s"
    )
    parser.add_argument("--task", default="ocr", help="a file of config/tasks; default: %(default)s")
    parser.add_argument(
        "--configfile",
        type=Path,
        help="main config whose evaluation has the task's suites: config/paper.yaml for the papers' tasks",
    )
    parser.add_argument(
        "--alpha", type=positive, help="of an adapter whose file does not say it; default: its rank"
    )
    parser.add_argument("--name", help="the row's name in tables; default: that of the file")
    parser.add_argument(
        "--seed", type=seed, default=1, help="of the evaluation's noise; default: %(default)s"
    )
    parser.add_argument("--images-per-prompt", type=count, help="default: that of config/evaluation.yaml")
    parser.add_argument("--threads", type=threads, default=1)
    parser.add_argument("--device", type=device, help="default: the accelerator, if there is one")
    parser.set_defaults(call=_check)
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
