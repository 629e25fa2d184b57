# Everything here is made from stored scores, histories and images in seconds. A change of the code that renders
# renders again; nothing upstream depends on it.
STORED = {
    "scores": "results/scores.parquet",
    "images": "results/image_scores.parquet",
    "settings": "results/config/rendering.yaml",
}
COMMON = "--scores {input.scores} --images {input.images} --settings {input.settings}"


rule tables:
    input:
        **STORED,
        layout="config/tables.yaml",
        published="config/published.yaml",
        code=rendering_code(
            "report",
            "results",
            "image_scores",
            "tables",
            "comparison",
            "costs",
            "origin",
            "table_formats",
            "html",
            "statistics",
        ),
    output:
        report(
            directory("results/tables"),
            patterns=["{table}.html"],
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        "logs/tables.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        f"python -m evaluation tables {COMMON} --out {{output}} 2> {{log}}"


rule figures:
    input:
        **STORED,
        layout="config/figures.yaml",
        code=rendering_code("figures/*", "results", "image_scores", "comparison", "statistics"),
    output:
        report(
            directory("results/figures"),
            patterns=["{figure}.png"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "logs/figures.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        f"python -m evaluation figures {COMMON} --out {{output}} 2> {{log}}"


rule claims:
    input:
        **STORED,
        claims="config/claims.yaml",
        code=rendering_code(
            "report", "results", "image_scores", "claim*", "evidence", "table_formats", "html", "statistics"
        ),
        mixture=mixture_evidence(),
    output:
        markdown="results/claims.md",
        json="results/claims.json",
        html=report("results/claims.html", caption="../report/claims.rst", category="Claims"),
    log:
        "logs/claims.log",
    conda:
        "../envs/goodhart.yaml"
    params:
        mixture=lambda wildcards, input: f"--mixture {input.mixture}" if input.mixture else "",
    shell:
        f"python -m evaluation claims {COMMON} --claims {{input.claims}} {{params.mixture}}"
        " --out {output.markdown} 2> {log}"


rule pages:
    input:
        **STORED,
        shown=["config/evaluation.yaml", "config/claims.yaml", "config/tables.yaml", "config/figures.yaml"],
        code=rendering_code("pages", "results", "html"),
    output:
        report(
            directory("results/pages"),
            patterns=["{page}.html"],
            caption="../report/pages.rst",
            category="How it was made",
            labels={"page": "{page}"},
        ),
    log:
        "logs/pages.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        f"python -m evaluation pages {COMMON} --out {{output}} 2> {{log}}"


rule report:
    # All that the report shows; `make report` then writes it into one file.
    input:
        "results/claims.md",
        "results/tables",
        "results/figures",
        "results/pages",
        mixture_results(),


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
