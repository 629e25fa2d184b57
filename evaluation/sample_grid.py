"""The picture of hacking: the same prompts and the same noise, one block of columns per method."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from safetensors.torch import load_file

from scenes.prompts import read as read_prompts


def load_images(results: Path, run: str, suite: str, step: int, prompts: int) -> np.ndarray:
    """uint8 (prompts, k, H, W, 3) of one evaluated step."""
    images = load_file(results / "runs" / run / "images" / f"{suite}_{step:06d}.safetensors")[
        "images"
    ].numpy()
    return images.reshape(prompts, -1, *images.shape[1:])


def sample_grid(
    scores: pd.DataFrame,
    results: Path,
    base: str,
    task: str,
    suite: str,
    prompt_file: Path,
    labels: dict,
    spec: dict,
    stem: Path,
) -> None:
    """Draw the prompts and methods of ``spec`` that ran: first seed, last step."""
    rows = scores[(scores.base == base) & (scores.task == task) & (scores.role != "cost")]
    methods = [m for m in spec["methods"] if m in set(rows.method)]
    prompts, seed = read_prompts(prompt_file), rows.seed.min()
    chosen = np.linspace(0, len(prompts) - 1, spec["prompts"]).astype(int)
    count = spec["images_per_method"]
    figure, axes = plt.subplots(
        len(chosen),
        len(methods),
        figsize=(0.85 * count * len(methods) + 1.5, 0.9 * len(chosen) + 0.5),
        squeeze=False,
    )
    for column, method in enumerate(methods):
        mine = rows[(rows.method == method) & (rows.seed == seed)]
        images = load_images(results, mine.run.iloc[0], suite, mine.step.max(), len(prompts))
        for row, prompt in enumerate(chosen):
            axis = axes[row, column]
            strip = np.pad(images[prompt, :count], ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
            axis.imshow(np.concatenate(list(strip), axis=1), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if column == 0:
                words = prompts[prompt]["prompt"].replace(" on ", "\non ").replace(" and ", "\nand ")
                axis.set_ylabel(words, rotation=0, ha="right", va="center", fontsize=8)
            if row == 0:
                axis.set_title(labels[method], fontsize=9)
    figure.tight_layout(pad=0.3)
    figure.savefig(f"{stem}.png", dpi=150, metadata={"Software": None})
    figure.savefig(f"{stem}.pdf", metadata={"CreationDate": None})
    plt.close(figure)
