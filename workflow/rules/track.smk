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
