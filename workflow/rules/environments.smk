rule reward_environment:
    # Packages of a reward whose versions clash with the trainer's; its service runs on them.
    input:
        "rewards/environments/{reward}.txt",
    output:
        directory("results/environments/{reward}"),
    log:
        "logs/environments/{reward}.log",
    conda:
        "../envs/goodhart.yaml"
    shell:
        "python -m rewards.service.environment {input} --out {output} > {log} 2>&1"
