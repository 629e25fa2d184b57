"""MLflow's page, opened on the table of runs with their scores."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from reporting.tracking import database, open_store, store_lock

VIEW = "scores"  # name of the saved table view that is opened
SHOWN_ROLES, SHOWN_COLUMNS = ("proxy", "gold", "unseen", "diversity"), 8  # what that view shows


def save_view(client: Any, experiment_id: str) -> None:
    """Save a table view that shows the score columns; without one MLflow's table shows no metric at all.

    It is the experiment tag that the page's own Share button writes: column ids in order, widths in pixels.
    """
    keys = {key for run in client.search_runs([experiment_id], max_results=200) for key in run.data.metrics}
    shown = [key for role in SHOWN_ROLES for key in sorted(keys) if key.startswith(f"{role}/")]
    columns = [f"metrics.`{key}`" for key in shown[:SHOWN_COLUMNS]]
    name = "attributes.`Run Name`"
    state = {
        "selectedColumns": columns,
        "columnOrder": [name, "runDateAndNestInfo", "duration", *columns],
        "columnWidths": {name: 310, "runDateAndNestInfo": 150, "duration": 90} | dict.fromkeys(columns, 180),
    }
    client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{VIEW}", json.dumps(state))


def serve(tracking_uri: str, experiment: str, port: int) -> None:
    """Print the address of the table of runs and become MLflow's server on 127.0.0.1; does not return."""
    with store_lock(tracking_uri):
        client, experiment_id = open_store(tracking_uri, experiment)
        save_view(client, experiment_id)
    path = database(tracking_uri)
    if path is None:
        sys.exit(f"{tracking_uri} is not a sqlite file: open the page of its own server")
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # a second process for features not used here
    page = f"/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
    print(f"http://127.0.0.1:{port}{page}", flush=True)
    # fmt: off
    command = [
        sys.executable, "-m", "mlflow", "server",
        "--backend-store-uri", f"sqlite:///{path}",
        "--artifacts-destination", str(path.parent / "mlartifacts"),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]
    # fmt: on
    os.execv(command[0], command)
