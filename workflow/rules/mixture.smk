# GARDO's didactic experiment: its own small configuration, no run of the grid.
rule mixture_run:
    output:
        directory("results/gaussian_mixture_runs/{method}__s{seed}"),
    log:
        "logs/gaussian_mixture/{method}__s{seed}.log",
    conda:
        "../envs/goodhart.yaml"
    threads: 1
    params:
        config=MIXTURE,
        row=lambda wildcards: mixture_row_json(wildcards.method),
    shell:
        "python -m didactic run --method {wildcards.method} --seed {wildcards.seed} --config {params.config}"
        " --out {output} 2> {log}"


rule gaussian_mixture:
    input:
        runs=mixture_runs,
        config=MIXTURE,
    output:
        report(
            directory("results/gaussian_mixture"),
            patterns=["{figure}.png"],
            caption="../report/mixture.rst",
            category="Figures",
            labels={"figure": "gaussian mixture, {figure}"},
        ),
    log:
        "logs/gaussian_mixture/report.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        "python -m didactic report {input.runs} --config {input.config} --out {output} 2> {log}"


rule mixture_map_run:
    # One learning rate and seed of a grid: rows and settings share the base model.
    output:
        "results/gaussian_mixture_map_runs/{grid}__{rate}__s{seed}.parquet",
    log:
        "logs/gaussian_mixture_map/{grid}__{rate}__s{seed}.log",
    conda:
        "../envs/goodhart.yaml"
    threads: 1
    params:
        config=MIXTURE,
        grid=lambda wildcards: mixture_grid_json(wildcards.grid),
    shell:
        "python -m didactic map-run --grid {wildcards.grid} --learning-rate {wildcards.rate}"
        " --seed {wildcards.seed} --config {params.config} --out {output} 2> {log}"


rule gaussian_mixture_map:
    input:
        runs=mixture_map_runs,
        config=MIXTURE,
    output:
        report(
            directory("results/gaussian_mixture_map"),
            patterns=["{figure}.png"],
            caption="../report/mixture_map.rst",
            category="Figures",
            labels={"figure": "gaussian mixture, {figure}"},
        ),
    log:
        "logs/gaussian_mixture_map/report.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        "python -m didactic map-report {input.runs} --config {input.config} --out {output} 2> {log}"


rule theorem_run:
    output:
        "results/theorem_runs/{method}__{dimensions}d__s{seed}.parquet",
    log:
        "logs/theorem/{method}__{dimensions}d__s{seed}.log",
    conda:
        "../envs/goodhart.yaml"
    threads: 1
    shell:
        "python -m didactic theorem --method {wildcards.method} --dimensions {wildcards.dimensions}"
        " --seed {wildcards.seed} --out {output} 2> {log}"


rule theorem:
    # DDRL's optimum is known in one and two dimensions.
    input:
        expand(
            "results/theorem_runs/{method}__{dimensions}d__s{seed}.parquet",
            method=["ddrl", "reverse_kl"],
            dimensions=[1, 2],
            seed=[0, 1, 2],
        ),
    output:
        report(
            directory("results/theorem"),
            patterns=["{figure}.png"],
            caption="../report/theorem.rst",
            category="Figures",
            labels={"figure": "theorem, {figure}"},
        ),
    log:
        "logs/theorem/report.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        "python -m didactic theorem-report {input} --out {output} 2> {log}"
