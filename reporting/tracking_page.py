"""MLflow's page, opened on the curves of proxy, gold and their gap and on the samples."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, defaultdict
from typing import Any

from reporting.tracking import GAP, GOLD, PROXY, SHEETS, SHEETS_TAG, database, open_store, store_lock

VIEW = "scores"  # name of the saved view that is opened
SHOWN_ROLES, SHOWN_COLUMNS = ("proxy", "gold", "unseen", "diversity"), 8  # what its table shows
CURVES = (PROXY, GOLD, GAP)


def save_view(client: Any, experiment_id: str) -> None:
    """Save a view with the score columns and with charts of what a run is looked at for first.

    Without one MLflow's table shows no metric at all, and its charts stand in the order of the alphabet. It
    is the tag that the page's own Share button writes: column ids in order, widths in pixels, charts.
    """
    runs = client.search_runs([experiment_id], max_results=200)
    keys = {key for run in runs for key in run.data.metrics}
    shown = [key for role in SHOWN_ROLES for key in sorted(keys) if key.startswith(f"{role}/")]
    columns = [f"metrics.`{key}`" for key in shown[:SHOWN_COLUMNS]]
    name = "attributes.`Run Name`"
    state = {
        "selectedColumns": columns,
        "columnOrder": [name, "runDateAndNestInfo", "duration", *columns],
        "columnWidths": {name: 310, "runDateAndNestInfo": 150, "duration": 90} | dict.fromkeys(columns, 180),
        "runsHiddenMode": "FIRST_20_RUNS",
        "isAccordionReordered": True,  # else sections are sorted by name
        **charts([metric for metric in CURVES if metric in keys], last_sheets(runs)),
    }
    client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{VIEW}", json.dumps(state))


def last_sheets(runs: list) -> dict[str, int]:
    """Suite -> the step at which most runs have their last contact sheet; of equal ones the later.

    A run names the suite of its task first.
    """
    steps: dict[str, Counter] = defaultdict(Counter)
    for run in runs:
        for suite, step in json.loads(run.data.tags.get(SHEETS_TAG, "{}")).items():
            steps[suite][step] += 1
    return {suite: max(of, key=lambda step: (of[step], step)) for suite, of in steps.items()}


def charts(curves: list[str], sheets: dict[str, int]) -> dict[str, list]:
    """MLflow's configuration of line charts, and of image grids that open on a step."""
    common = {"deleted": False, "isGenerated": False, "runsCountToCompare": 20}
    lines = [
        {"type": "LINE", "metricKey": metric, "selectedMetricKeys": [metric], "xAxisKey": "step"}
        | {"uuid": metric, "metricSectionId": "curves", "lineSmoothness": 0, **common}
        for metric in curves
    ]
    grids = [
        {"type": "IMAGE", "imageKeys": [SHEETS + suite], "step": step, "showRunParams": False}
        | {"uuid": SHEETS + suite, "metricSectionId": "samples", **common}
        for suite, step in sheets.items()
    ]
    shown = {"display": True, "isReordered": True}
    curves_section = {"uuid": "curves", "name": "Proxy, gold and their gap over training", **shown}
    samples_section = {"uuid": "samples", "name": "Samples", "columns": 1, "cardHeight": 640, **shown}
    return {
        "compareRunCharts": lines + grids,
        "compareRunSections": [curves_section, samples_section],
    }


def serve(tracking_uri: str, experiment: str, port: int) -> None:
    """Print the address of the runs' charts and become MLflow's server on 127.0.0.1; does not return."""
    with store_lock(tracking_uri):
        client, experiment_id = open_store(tracking_uri, experiment)
        save_view(client, experiment_id)
    path = database(tracking_uri)
    if path is None:
        sys.exit(f"{tracking_uri} is not a sqlite file: open the page of its own server")
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # a second process for features not used here
    page = f"/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
    print(f"http://127.0.0.1:{port}{page}&compareRunsMode=CHART", flush=True)
    # fmt: off
    command = [
        sys.executable, "-m", "mlflow", "server",
        "--backend-store-uri", f"sqlite:///{path}",
        "--artifacts-destination", str(path.parent / "mlartifacts"),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]
    # fmt: on
    os.execv(command[0], command)
