rule evaluate:
    # Images lie beside the scores and are no output: what scores anew samples nothing again, and they can be deleted.
    input:
        adapter="results/runs/{run}/adapter/pytorch_lora_weights.safetensors",
        provenance="results/runs/{run}/provenance.json",
        environments=scoring_environments,
        prompts=prompts_of_suites,
    output:
        scores="results/runs/{run}/scores.parquet",
        images="results/runs/{run}/image_scores.parquet",
    log:
        "logs/evaluate/{run}.log",
    wildcard_constraints:
        run=MADE,
    conda:
        "../envs/goodhart.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        name=evaluation_settings,
        settings=lambda wildcards: PLAN.digest(evaluation_settings(wildcards)),
    shell:
        "python -m workflow.job evaluation evaluate results/runs/{wildcards.run}"
        " --settings results/config/{params.name}.yaml"
        " --out {output.scores} --out-images {output.images} --threads {threads} 2>> {log}"


rule restore:
    # Runs that a store holds with the same settings (key stored_runs): scores, histories and provenance.
    input:
        store=[PLAN.store / name for name in stored.files()] if PLAN.stored else [],
    output:
        expand("results/runs/{run}/{name}", run=PLAN.stored, name=stored.RESTORED),
    log:
        "logs/restore.log",
    conda:
        "../envs/goodhart.yaml"
    params:
        runs=PLAN.stored,
        store=PLAN.store,
    shell:
        "python -m reporting.stored restore {params.runs:q} --store {params.store:q} 2> {log}"


rule collect:
    input:
        scores=run_files("scores.parquet"),
        images=run_files("image_scores.parquet"),
    output:
        scores="results/scores.parquet",
        images="results/image_scores.parquet",
    log:
        "logs/collect.log",
    conda:
        "../envs/goodhart.yaml"
    params:
        folders=lambda wildcards, input: [os.path.dirname(path) for path in input.scores],
    shell:
        "python -m reporting collect {params.folders:q} --out {output.scores} --out-images {output.images} 2> {log}"
