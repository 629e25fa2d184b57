# Everything here is made from stored scores, histories and images in seconds. A change of the code that renders
# renders again; nothing upstream depends on it.
STORED = {
    "scores": "results/scores.parquet",
    "images": "results/image_scores.parquet",
}
RENDERING = PLAN.digest("rendering")  # the settings that all of these rules read
COMMON = "--scores {input.scores} --images {input.images} --settings results/config/rendering.yaml"


rule instrument:
    # Controls before claims: what the suite can judge at all.
    input:
        **STORED,
        checks="config/instrument.yaml",
        code=REPORTING,
    output:
        markdown="results/instrument.md",
        json="results/instrument.json",
        # Categories stand in alphabetical order, and this one is to be read first.
        html=report(
            "results/instrument.html",
            caption="../report/instrument.rst",
            category="Checks of the instrument",
        ),
    log:
        "logs/instrument.log",
    conda:
        "../envs/goodhart.yaml"
    params:
        settings=RENDERING,
    shell:
        f"python -m reporting instrument {COMMON} --checks {{input.checks}} --out {{output.markdown}} 2> {{log}}"


rule tuning:
    # For a grid of candidates (config/tuning.yaml): which setting of a task is the cheapest that can be trusted.
    input:
        **STORED,
        checks="config/instrument.yaml",
        code=REPORTING,
    output:
        markdown="results/tuning.md",
        csv="results/tuning.csv",
    log:
        "logs/tuning.log",
    conda:
        "../envs/goodhart.yaml"
    params:
        settings=RENDERING,
    shell:
        f"python -m reporting tuning {COMMON} --checks {{input.checks}} --out {{output.markdown}} 2> {{log}}"


rule tables:
    input:
        **STORED,
        instrument="results/instrument.json",
        layout=["config/tables.yaml", "config/trajectories.yaml"],
        published="config/published.yaml",
        code=REPORTING,
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
    params:
        settings=RENDERING,
    shell:
        f"python -m reporting tables {COMMON} --instrument {{input.instrument}} --out {{output}} 2> {{log}}"


rule figures:
    input:
        **STORED,
        layout=["config/figures.yaml", "config/trajectories.yaml"],
        code=REPORTING,
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
    params:
        settings=RENDERING,
    shell:
        f"python -m reporting figures {COMMON} --out {{output}} 2> {{log}}"


rule claims:
    input:
        **STORED,
        claims="config/claims.yaml",
        instrument="results/instrument.json",
        code=REPORTING,
        mixture=mixture_evidence(),
        votes=glob.glob("results/votes.parquet"),  # people's, where they have been counted
    output:
        markdown="results/claims.md",
        json="results/claims.json",
        html=report("results/claims.html", caption="../report/claims.rst", category="Claims"),
    log:
        "logs/claims.log",
    conda:
        "../envs/goodhart.yaml"
    params:
        settings=RENDERING,
        mixture=lambda wildcards, input: f"--mixture {input.mixture}" if input.mixture else "",
    shell:
        f"python -m reporting claims {COMMON} --claims {{input.claims}} {{params.mixture}}"
        " --instrument {input.instrument}"
        " --out {output.markdown} 2> {log}"


rule answer:
    # What the report opens on.
    input:
        **STORED,
        instrument="results/instrument.json",
        claims="results/claims.json",
        figures="results/figures",
        tables="results/tables",
        gallery="results/gallery.html",
        introduction="workflow/report/workflow.rst",
        code=REPORTING,
    output:
        "results/answer.rst",
    log:
        "logs/answer.log",
    conda:
        "../envs/goodhart.yaml"
    params:
        settings=RENDERING,
    shell:
        f"python -m reporting answer {COMMON} --instrument {{input.instrument}} --claims {{input.claims}}"
        " --figures {input.figures} --gallery {input.gallery} --introduction {input.introduction} --out {output} 2> {log}"


rule gallery:
    # Images that were kept; what has none is left out.
    input:
        **STORED,
        code=[*REPORTING, "reporting/gallery.html"],
    output:
        "results/gallery.html",
    log:
        "logs/gallery.log",
    conda:
        "../envs/goodhart.yaml"
    params:
        settings=RENDERING,
    shell:
        f"python -m reporting gallery {COMMON} --out {{output}} 2> {{log}}"


rule pages:
    input:
        **STORED,
        shown=expand(
            "config/{name}.yaml",
            name=["evaluation", "instrument", "claims", "tables", "trajectories", "figures"],
        ),
        code=REPORTING,
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
    params:
        settings=RENDERING,
    shell:
        f"python -m reporting pages {COMMON} --out {{output}} 2> {{log}}"


rule report:
    # All that the report shows; `make report` then writes it into one file.
    input:
        "results/answer.rst",
        "results/instrument.md",
        "results/claims.md",
        "results/tables",
        "results/figures",
        "results/gallery.html",
        "results/pages",
        mixture_results(),


rule base_check:
    # Who cannot match the untrained base model cannot compare trained ones: to be asked first.
    input:
        scores=base_scores(),
        expected="config/base_check.yaml",
        published="config/published.yaml",
    output:
        markdown="results/base_check.md",
        csv="results/base_check.csv",
    log:
        "logs/base_check.log",
    conda:
        "../envs/goodhart.yaml"
    params:
        settings=PLAN.digest("base_check"),
    shell:
        "python -m reporting.base_check {input.scores} --settings results/config/base_check.yaml"
        " --expected {input.expected} --published {input.published} --out {output.markdown} 2> {log}"
