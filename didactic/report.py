"""The experiment's table and figure from the scores and samples of all runs."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd
import torch
from safetensors.torch import load_file

from core.files import replacing
from core.tables import read_table
from didactic import checks, mixture, theorem
from didactic.configuration import MixtureConfig
from reporting.statistics import bootstrap_interval
from reporting.table_formats import Text, decimal, markdown

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

MEASURES = {
    "reward": ("reward ↑", 2),
    "modes": ("modes covered of 5 ↑", 1),
    "central_share": ("central share ↑", 3),
}


def table(scores: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """Mean and 95 % bootstrap interval over seeds at the last step, one row per method and measure."""
    rows = []
    for method, label in labels.items():
        mine = scores[scores["method"] == method]
        last = mine[mine["step"] == mine["step"].max()]
        for measure in MEASURES:
            interval = bootstrap_interval(last.loc[last["measure"] == measure, "value"].to_numpy())
            rows.append({"method": label, "measure": measure, **interval._asdict()})
    return pd.DataFrame(rows)


def to_markdown(summary: pd.DataFrame, note: str) -> str:
    """The table with intervals in brackets, ``note`` beneath."""
    header = [Text("method"), *(Text(title) for title, _ in MEASURES.values())]
    lines = [header]
    for method, rows in summary.groupby("method", sort=False):
        cells = []
        for measure, (_, digits) in MEASURES.items():
            row = rows[rows["measure"] == measure].iloc[0]
            low, high = decimal(row["low"], digits), decimal(row["high"], digits)
            cells.append(Text(decimal(row["mean"], digits), "", f" [{low}, {high}]"))
        lines.append([Text(method), *cells])
    seeds = int(summary["seeds"].min())
    caption = [f"Mean and 95 % bootstrap interval over {seeds} seeds, last step.", note]
    return markdown("Gaussian mixture: reward and modes", [("Last step", lines)], caption)


def figure(
    samples: dict[str, torch.Tensor], labels: dict[str, str], reward: mixture.Reward, stem: Path
) -> None:
    """Samples of one seed over the reward landscape, one panel per method; png and pdf."""
    axis = torch.linspace(-4, 4, 161)
    grid = torch.cartesian_prod(axis, axis)
    landscape = reward(grid).reshape(161, 161).T
    columns = min(4, len(samples))
    rows = -(-len(samples) // columns)
    size = (2.3 * columns, 2.5 * rows)
    figure, panels = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for panel in panels.flat[len(samples) :]:
        panel.set_axis_off()
    for panel, (method, points) in zip(panels.flat, samples.items(), strict=False):
        panel.imshow(
            landscape.numpy(), origin="lower", extent=(-4, 4, -4, 4), cmap="Greens", vmin=0, vmax=1.3
        )
        panel.scatter(*points[:600].T.numpy(), s=2, color="#0072B2", alpha=0.5, linewidths=0)
        panel.set(title=labels[method], xticks=[], yticks=[], xlim=(-4, 4), ylim=(-4, 4))
        panel.title.set_size(8)
    for suffix in (".png", ".pdf"):
        figure.savefig(stem.with_suffix(suffix), dpi=200)
    plt.close(figure)


def with_checks(scores: pd.DataFrame, config: MixtureConfig) -> tuple[pd.DataFrame, checks.Outcome]:
    """Scores with ``setting`` and, where the checks are passed, the rows ``central_mode_found``."""
    at = config.setting
    whole = scores.assign(setting="single", heights=at.heights, length=scores["step"] / at.iterations)
    outcome = checks.check(whole, 1.0, config.checks)
    if outcome.passes:
        whole = pd.concat([whole, checks.central_mode_found(whole)], ignore_index=True)
    return whole.drop(columns=["heights", "length"]), outcome


def write(folders: list[Path], config: MixtureConfig, out: Path) -> None:
    """``out/`` with scores.parquet, table.csv, table.md and samples.png, .pdf (first seed)."""
    labels = {name: row.label for name, row in config.rows.items()}
    scores = pd.concat([read_table(folder / "scores.parquet") for folder in folders], ignore_index=True)
    first = scores["seed"].min()
    samples = {}
    for folder in folders:
        method, seed = folder.name.rsplit("__s", 1)
        if int(seed) == first:
            samples[method] = load_file(folder / "samples.safetensors")["samples"]
    summary = table(scores, labels)
    scores, outcome = with_checks(scores, config)
    with replacing(out) as temporary:
        temporary.mkdir()
        scores.to_parquet(temporary / "scores.parquet", index=False)
        summary.to_csv(temporary / "table.csv", index=False)
        (temporary / "table.md").write_text(to_markdown(summary, checks.describe(outcome)))
        reward = mixture.Reward(config.setting.reward_width, config.setting.heights)
        figure({m: samples[m] for m in labels}, labels, reward, temporary / "samples")


def write_theorem(files: list[Path], out: Path) -> None:
    """``out/`` with distances.parquet, table.md and distances.png, .pdf: mean and range over seeds."""
    rows = pd.concat([read_table(path) for path in files], ignore_index=True)
    lines = [[Text("method"), Text("dimensions"), Text("before"), Text("after")]]
    figure, panels = plt.subplots(1, rows["dimensions"].nunique(), figsize=(7, 3), layout="constrained")
    colors = dict(zip(theorem.LOSSES, ("#0072B2", "#D55E00"), strict=True))
    for panel, (dimensions, part) in zip(
        [panels] if rows["dimensions"].nunique() == 1 else panels, rows.groupby("dimensions"), strict=True
    ):
        for method, label in theorem.LOSSES.items():
            curves = part[part["method"] == method].pivot(index="update", columns="seed", values="distance")
            panel.plot(curves.index, curves.mean(axis=1), color=colors[method], label=label)
            panel.fill_between(
                curves.index, curves.min(axis=1), curves.max(axis=1), color=colors[method], alpha=0.2
            )
            ends = []
            for update in (curves.index[0], curves.index[-1]):
                interval = bootstrap_interval(curves.loc[update].to_numpy())
                tail = f" [{decimal(interval.low, 2)}, {decimal(interval.high, 2)}]"
                ends.append(Text(decimal(interval.mean, 2), "", tail))
            lines.append([Text(label), Text(str(dimensions)), *ends])
        panel.set(title=f"{dimensions}-dimensional", xlabel="update", yscale="log")
        panel.set_ylabel("distance to the optimum")
        panel.legend(frameon=False)
    seeds = rows["seed"].nunique()
    caption = [
        "Sliced 1-Wasserstein distance to p_data exp(r / beta) / Z before and after training, mean and 95 % "
        f"bootstrap interval over {seeds} seeds."
    ]
    with replacing(out) as temporary:
        temporary.mkdir()
        rows.to_parquet(temporary / "distances.parquet", index=False)
        (temporary / "table.md").write_text(markdown("DDRL's theorem", [("Last step", lines)], caption))
        for suffix in (".png", ".pdf"):
            figure.savefig((temporary / "distances").with_suffix(suffix), dpi=200)
    plt.close(figure)
