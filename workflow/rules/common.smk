# Resolves the grid when the workflow is read, so that bad input stops before the first job.
import glob
import os
import re
import shlex
import sys

from snakemake.exceptions import WorkflowError

sys.path.insert(0, os.getcwd())

from didactic.configuration import jobs_of_map as mixture_map_jobs  # noqa: E402
from didactic.configuration import load as load_mixture  # noqa: E402
from prompt_sets import identity  # noqa: E402
from reporting import stored  # noqa: E402
from reporting.tracking import database, default_uri, store_name  # noqa: E402
from rewards.service.environment import folders  # noqa: E402
from core.command import JOB_ENVIRONMENT  # noqa: E402
from core.files import remove_leftovers  # noqa: E402
from core.settings import NAME  # noqa: E402
from runs.main_config import check_main  # noqa: E402
from workflow import fork_server  # noqa: E402
from workflow.plan import make_plan  # noqa: E402
from workflow.readiness import Jobs, check_ready  # noqa: E402

try:
    config.update(check_main(config, workflow.configfiles))
    PLAN = make_plan(config)
except ValueError as error:
    raise WorkflowError(str(error)) from None


REBUILDING = {
    "pretrain_tiny_sd3",
    "pretrain_tiny_flux",
    "pretrain_tiny_cosmos",
    "generate",
    "pretrain_scorers",
    "rebuild_base",
}


onstart:
    # Not when the workflow is read: a dry run plans without weights and GPU.
    jobs = [(job.rule.name, job.wildcards_dict) for job in workflow.dag.needrun_jobs()]
    needed = Jobs.of(jobs)
    try:
        check_ready(PLAN, needed, jobs_run_here=not workflow.non_local_exec)
        if {name for name, _ in jobs} - REBUILDING:  # which must go on where weights are damaged
            PLAN.write(needed.train)  # under snakemake's lock
            if (
                not workflow.non_local_exec
            ):  # a cluster's jobs may have outlived the snakemake that was killed
                remove_leftovers("results", below=True)
    except ValueError as error:
        raise WorkflowError(str(error)) from None
    if needed.with_models and not workflow.non_local_exec:
        fork_server.start(JOB_ENVIRONMENT)


def any_of(names):
    """Regular expression of these names; they may hold dots."""
    return "|".join(map(re.escape, names)) or "none"


wildcard_constraints:
    run=any_of(PLAN.trained),
    base=any_of(dict.fromkeys(row.base for row in PLAN.rows)),
    task=any_of(PLAN.tasks),
    kind="synthetic|real",
    set=NAME.pattern,


def job_environment():
    """What jobs export. ``python`` is the interpreter that runs snakemake, wherever PATH leads, unless each rule
    has an environment of its own."""
    own = (
        "" if workflow.deployment_settings.deployment_method else shlex.quote(os.path.dirname(sys.executable))
    )
    path = [f'PATH={own}:"$PATH"'] if own else []
    return " ".join([*(f"{name}={value}" for name, value in JOB_ENVIRONMENT.items()), *path])


shell.prefix(f"export {job_environment()}; ")


MADE = any_of(PLAN.made)  # runs trained and evaluated here; the others come from a store


def data_of(wildcards):
    """Data latents of the run, if its method trains on data."""
    return PLAN.data_file(wildcards.run)


def start_of(wildcards):
    """Adapter that the run starts from, if it starts from another run's; its weights must be those shipped."""
    return PLAN.start_file(wildcards.run) if PLAN.verified else []


def training_environments(wildcards):
    """Environments of the run's rewards, where they have their own. A newer one trains nothing again."""
    task = PLAN.trained[wildcards.run].task_settings
    return [ancient(path) for path in folders(task.rewards())]


def scoring_environments(wildcards):
    """Environments of the metrics that score the run's images, where they have their own."""
    suites = PLAN.tasks[PLAN.trained[wildcards.run].task].suites
    metrics = [metric for suite in suites for metric in PLAN.evaluation.suites[suite].scored()]
    return [ancient(path) for path in folders(metrics)]


# What renders reads files alone and takes seconds, so any change of it renders again.
REPORTING = sorted(glob.glob("reporting/**/*.py", recursive=True))


def run_files(name):
    return expand("results/runs/{run}/{name}", run=[*PLAN.runs, *PLAN.checked], name=name)


def mixture_results():
    """Results of the Gaussian mixture that the config wants beside the grid."""
    return [f"results/{name}" for name in ("gaussian_mixture", "gaussian_mixture_map") if config[name]]


def mixture_evidence():
    """What the claims look at: the map over settings where it is wanted, else the single setting."""
    return mixture_results()[-1:]


def prompts_of_run(wildcards):
    """The run's training prompts, shipped or made by a job; other prompts train again."""
    return PLAN.training_prompts(wildcards.run)


def prompts_of_task(wildcards):
    return PLAN.tasks[wildcards.task].prompts


def prompts_of_suites(wildcards):
    """The run's test prompts, shipped or made by a job."""
    return PLAN.test_prompts(wildcards.run)


def evaluation_settings(wildcards):
    """Name of what the evaluation of the run's task reads."""
    return f"evaluation/{PLAN.trained[wildcards.run].task}"


def base_scores():
    return expand("results/runs/{run}/scores.parquet", run=PLAN.base_runs())


STORE = default_uri()  # MLFLOW_TRACKING_URI names it
LOGGED = (
    f"results/mlflow/{store_name(STORE)}"  # a store has its own marks, so that another one is filled as well
)


def store_file(flag):
    """The database, where the store is a file: one that was deleted is made and filled again."""
    path = database(STORE)
    return [] if path is None else [flag(os.path.relpath(path))]


def mlflow_ids():
    return expand(f"{LOGGED}/{{run}}.id", run=PLAN.runs)


MIXTURE = "config/gaussian_mixture.yaml"


def mixture_runs(wildcards):
    settings = load_mixture(MIXTURE)
    return expand(
        "results/gaussian_mixture_runs/{method}__s{seed}",
        method=settings.rows,
        seed=settings.seeds,
    )


def mixture_row_json(name):
    """A row of the single experiment and its setting: a change of either runs again."""
    settings = load_mixture(MIXTURE)
    return settings.rows[name].model_dump_json() + settings.setting.model_dump_json()


def mixture_grid_json(name):
    """A grid of the map with its rows and the setting beneath."""
    settings = load_mixture(MIXTURE)
    grid = settings.map.grids[name]
    rows = [settings.rows[row].model_dump_json() for row in grid.rows]
    return grid.model_dump_json() + "".join(rows) + settings.setting.model_dump_json()


def mixture_map_runs(wildcards):
    return [
        f"results/gaussian_mixture_map_runs/{grid}__{rate}__s{seed}.parquet"
        for grid, rate, seed in mixture_map_jobs(load_mixture(MIXTURE))
    ]
