# Makes the shipped weights again. Nothing else depends on these rules: the files lie in resources/.
rule pretrain_tiny_sd3:
    output:
        directory("results/rebuild/tiny-sd3"),
    log:
        "logs/rebuild/tiny-sd3.log",
    conda:
        "../envs/goodhart.yaml"
    threads: workflow.cores
    shell:
        "python -m pretraining.pipelines tiny-sd3 --out {output} --threads {threads} 2> >(tee {log} >&2)"


rule pretrain_tiny_flux:
    # Shares the autoencoder of the other.
    input:
        "results/rebuild/tiny-sd3",
    output:
        directory("results/rebuild/tiny-flux"),
    log:
        "logs/rebuild/tiny-flux.log",
    conda:
        "../envs/goodhart.yaml"
    threads: workflow.cores
    shell:
        "python -m pretraining.pipelines tiny-flux --autoencoder {input}/vae --out {output}"
        " --threads {threads} 2> >(tee {log} >&2)"


rule pretrain_tiny_cosmos:
    output:
        directory("results/rebuild/tiny-cosmos"),
    log:
        "logs/rebuild/tiny-cosmos.log",
    conda:
        "../envs/goodhart.yaml"
    threads: workflow.cores
    shell:
        "python -m pretraining.pipelines tiny-cosmos --out {output} --threads {threads} 2> >(tee {log} >&2)"


rule generate:
    # What one of the preference models learns from besides drawn scenes.
    input:
        "results/rebuild/tiny-sd3",
    output:
        "results/rebuild/generated.npz",
    log:
        "logs/rebuild/generated.log",
    conda:
        "../envs/goodhart.yaml"
    threads: workflow.cores
    shell:
        "python -m pretraining.scorers.generate --base {input} --out {output} --threads {threads} 2> {log}"


rule pretrain_scorers:
    input:
        base="results/rebuild/tiny-sd3",
        generated="results/rebuild/generated.npz",
    output:
        directory("results/rebuild/scorers"),
    log:
        "logs/rebuild/scorers.log",
    conda:
        "../envs/goodhart.yaml"
    threads: workflow.cores
    shell:
        "python -m pretraining.scorers --autoencoder {input.base}/vae --generated {input.generated}"
        " --out {output} --threads {threads} 2> >(tee {log} >&2)"


rule rebuild_base:
    input:
        bases=expand("results/rebuild/{name}", name=["tiny-sd3", "tiny-flux", "tiny-cosmos"]),
        scorers="results/rebuild/scorers",
    log:
        "logs/rebuild/install.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        "python -m pretraining.scorers.install --bases {input.bases} --scorers {input.scorers} 2> {log}"
