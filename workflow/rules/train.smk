rule train:
    # Depends on the run's settings, which hold the sha256 of every weight file it reads, and on data only.
    # run.yaml is written when the workflow starts (PLAN.write).
    input:
        data=data_of,
        start=start_of,
        environments=training_environments,
        prompts=prompts_of_run,
    output:
        adapter="results/runs/{run}/adapter/pytorch_lora_weights.safetensors",
        history="results/runs/{run}/history.parquet",
        provenance="results/runs/{run}/provenance.json",
    log:
        "logs/train/{run}.log",
    wildcard_constraints:
        run=MADE,
    conda:
        "../envs/goodhart.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        gpu=0,
        processes=0,  # one per GPU
        nodes=1,
    params:
        settings=lambda wildcards: PLAN.trained[wildcards.run].hash,
        data=lambda wildcards, input: f"--data {input.data}" if input.data else "",
    shell:
        "python -m workflow.launch --gpus {resources.gpu} --processes {resources.processes}"
        " --nodes {resources.nodes} --threads {threads} --"
        " run results/runs/{wildcards.run} {params.data} 2>> {log}"


rule data:
    # Latents for DDRL: samples of the frozen base model, encoded scenes, or a folder of real images.
    input:
        prompts_of_task,
    output:
        "results/data/{base}__{task}__{kind}{per_prompt}.safetensors",
    log:
        "logs/data/{base}__{task}__{kind}{per_prompt}.log",
    conda:
        "../envs/goodhart.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        gpu=0,
        processes=0,  # one per GPU
        nodes=1,
    params:
        identity=lambda wildcards: PLAN.data_identity(wildcards.base, wildcards.task, wildcards.kind),
        batch=lambda wildcards: PLAN.data_batch(wildcards.base, wildcards.task),
    shell:
        "python -m workflow.launch --gpus {resources.gpu} --processes {resources.processes}"
        " --nodes {resources.nodes} --threads {threads} --"
        " data --base {wildcards.base} --task {wildcards.task}"
        " --kind {wildcards.kind} --per-prompt {wildcards.per_prompt} --batch {params.batch}"
        " --out {output} 2>> {log}"


rule prompts:
    # A set of config/prompt_sets.yaml, downloaded and checked, or a generated one.
    output:
        "results/prompts/{set}.jsonl",
    log:
        "logs/prompts/{set}.log",
    conda:
        "../envs/goodhart.yaml"
    params:
        identity=lambda wildcards, output: identity(output[0]),
    shell:
        "python -m prompt_sets make {wildcards.set} --out {output} 2> >(tee {log} >&2)"
