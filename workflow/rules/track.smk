rule mlflow_init:
    # One job creates the database: several at once on a fresh file lose runs.
    output:
        touch("results/mlflow/initialised"),
    log:
        "logs/mlflow/init.log",
    conda:
        "../envs/goodhart.yaml"
    params:
        store=default_uri(),  # MLFLOW_TRACKING_URI names it; another store is filled anew
    shell:
        "python -m reporting.tracking init > {log} 2>&1"


rule log_run:
    input:
        ready=ancient("results/mlflow/initialised"),
        scores="results/runs/{run}/scores.parquet",
    output:
        "results/mlflow/{run}.id",
    log:
        "logs/mlflow/{run}.log",
    conda:
        "../envs/goodhart.yaml"
    params:
        store=default_uri(),
    shell:
        "python -m reporting.tracking log results/runs/{wildcards.run} --done {output} > {log} 2>&1"


rule mlflow:
    input:
        mlflow_ids(),
