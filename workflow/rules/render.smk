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
    shell:
        "python -m evaluation figures --scores {input.scores} --settings {input.settings} --out {output} 2> {log}"


rule claims:
    input:
        scores="results/scores.parquet",
        settings="results/config/rendering.yaml",
        claims="config/claims.yaml",
    output:
        multiext("results/claims", ".md", ".json"),
    log:
        "logs/claims.log",
    shell:
        "python -m evaluation claims --scores {input.scores} --settings {input.settings}"
        " --claims {input.claims} --out {output[0]} 2> {log}"
