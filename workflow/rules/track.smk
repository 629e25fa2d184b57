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


rule mlflow_init:
    # One job creates the database: several at once on a fresh file lose runs.
    output:
        store_file(update),
        ready=touch(f"{LOGGED}/initialised"),
    log:
        "logs/mlflow/init.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        "python -m reporting.tracking init > {log} 2>&1"


rule log_run:
    input:
        store_file(ancient),  # each log changes it
        ready=f"{LOGGED}/initialised",
        scores="results/runs/{run}/scores.parquet",
    output:
        f"{LOGGED}/{{run}}.id",
    log:
        "logs/mlflow/{run}.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        "python -m reporting.tracking log results/runs/{wildcards.run} --done {output} > {log} 2>&1"


rule mlflow:
    input:
        mlflow_ids(),
