rule tables:
    input:
        scores="results/scores.parquet",
        settings="results/config/rendering.yaml",
        layout="config/tables.yaml",
        published="config/published.yaml",
    output:
        directory("results/tables"),
    log:
        "logs/tables.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        "python -m evaluation tables --scores {input.scores} --settings {input.settings} --out {output} 2> {log}"


rule figures:
    input:
        scores="results/scores.parquet",
        settings="results/config/rendering.yaml",
    output:
        directory("results/figures"),
    log:
        "logs/figures.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        "python -m evaluation figures --scores {input.scores} --settings {input.settings} --out {output} 2> {log}"


rule claims:
    input:
        scores="results/scores.parquet",
        settings="results/config/rendering.yaml",
        claims="config/claims.yaml",
    output:
        markdown="results/claims.md",
        json="results/claims.json",
    log:
        "logs/claims.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        "python -m evaluation claims --scores {input.scores} --settings {input.settings}"
        " --claims {input.claims} --out {output.markdown} 2> {log}"


rule base_check:
    # Who cannot match the untrained base model cannot compare trained ones: to be asked first.
    input:
        scores=base_scores(),
        settings="results/config/scoring.yaml",
        expected="config/base_check.yaml",
        published="config/published.yaml",
    output:
        markdown="results/base_check.md",
        csv="results/base_check.csv",
    log:
        "logs/base_check.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        "python -m evaluation.base_check {input.scores} --settings {input.settings}"
        " --expected {input.expected} --published {input.published} --out {output.markdown} 2> {log}"
