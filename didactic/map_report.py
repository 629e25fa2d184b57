"""The map's tables: which settings pass the checks, and in how many which row finds the central mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from core.files import replacing
from core.tables import read_table
from didactic import checks, map_figure, mixture
from didactic.configuration import MixtureConfig, jobs_of_map
from didactic.grid import ANY, AXES
from reporting.statistics import Interval, bootstrap_interval
from reporting.table_formats import Text, decimal, markdown

CLOSE = 1e-9
NUMBERS = {"rise": 2, "fall": 2, "growth": 2, "modes": 1, "drift": 2, "chance": 2}


def shaped(scores: pd.DataFrame, config: MixtureConfig) -> pd.DataFrame:
    """Scores in which rows without features are repeated for every shaping of their grid, so that all rows
    stand at the same settings."""
    shapings = pd.DataFrame(
        [{"grid": name} | s.model_dump() for name, grid in config.map.grids.items() for s in grid.shapings]
    )
    plain = scores[scores["features"] == ANY].drop(columns=["features", "group_size"])
    both = [scores[scores["features"] != ANY], plain.merge(shapings, on="grid")]
    return pd.concat(both, ignore_index=True)[list(scores.columns)]


def judged(scores: pd.DataFrame, checked: pd.DataFrame, config: MixtureConfig) -> pd.DataFrame:
    """What the claims look at: scores at the judged lengths and, where the checks are passed,
    ``central_mode_found``.

    Returns:
        The columns of ``scores`` (of ``grid.train``) and ``setting``, a text.
    """
    lengths = np.asarray(config.map.lengths)
    at = scores[(np.abs(scores["length"].to_numpy()[:, None] - lengths) < CLOSE).any(axis=1)]
    whole = shaped(at, config)
    keys = [*checks.LANDSCAPE, "step"]
    able = checked.loc[checked["passes"], keys]
    whole = pd.concat([whole, checks.central_mode_found(whole).merge(able, on=keys)], ignore_index=True)
    text = whole["grid"].str.cat([whole[axis].astype(str) for axis in [*AXES, "step"]], sep=" ")
    return whole.assign(setting=text)


def _interval(rows: pd.DataFrame) -> Interval | None:
    """Over seeds and over settings within a seed."""
    if rows.empty:
        return None
    return bootstrap_interval(rows.pivot(index="seed", columns="setting", values="value").to_numpy())


def summary(scores: pd.DataFrame, evidence: pd.DataFrame, config: MixtureConfig) -> pd.DataFrame:
    """One line per row and group of shapings over the settings that pass: how often the central mode is found
    at the end, how often at some measurement on the way, modes covered and mean reward.

    Returns:
        method, features, settings, seeds, found, found_low, found_high, on_the_way, modes, reward.
    """
    found = evidence[evidence["measure"] == checks.CENTRAL_MODE_FOUND]
    on_the_way = shaped(scores[(scores["measure"] == "central_share") & (scores["length"] > 0)], config)
    lines = []
    for method in [m for m in config.rows if m in set(scores["method"])]:
        plain = (scores.loc[scores["method"] == method, "features"] == ANY).all()
        for features in [ANY] if plain else found["features"].unique():
            mine = found[found["method"] == method]
            if plain:  # once per landscape and length
                mine = mine.drop_duplicates(["seed", *checks.LANDSCAPE, "step"])
            else:
                mine = mine[mine["features"] == features]
            interval = _interval(mine)
            if interval is None:
                continue
            same = [*AXES, "grid", "method", "seed"]
            ever = mine[[*same, "step"]].merge(on_the_way, on=same, suffixes=("", "_seen"))
            ever = ever[ever["step_seen"] <= ever["step"]]
            ever = ever.groupby([*same, "step"])["value"].max() >= mixture.COVERED
            others = mine[[*same, "step"]].merge(evidence, on=[*same, "step"])
            mean = others.groupby("measure")["value"].mean()
            lines.append(
                {
                    "method": method,
                    "features": features,
                    "settings": mine["setting"].nunique(),
                    "seeds": interval.seeds,
                    "found": interval.mean,
                    "found_low": interval.low,
                    "found_high": interval.high,
                    "on_the_way": ever.mean(),
                    "modes": mean["modes"],
                    "reward": mean["reward"],
                }
            )
    columns = ["method", "features", "settings", "seeds", "found", "found_low", "found_high"]
    return pd.DataFrame(lines, columns=[*columns, "on_the_way", "modes", "reward"])


def _checks_table(checked: pd.DataFrame) -> list[list[Text]]:
    head = ["grid", "learning rate", "samples", "reward width", "heights", "iterations"]
    lines = [[Text(t) for t in (*head, *NUMBERS, "failed")]]
    for row in checked.to_dict("records"):
        values = [row["grid"], *(f"{row[k]:g}" for k in ("learning_rate", "samples", "reward_width"))]
        numbers = [Text(decimal(row[k], digits)) for k, digits in NUMBERS.items()]
        failed = Text(", ".join(row["failed"]) or "none", "bold" if row["passes"] else "")
        lines.append([*map(Text, (*values, row["heights"], str(row["step"]))), *numbers, failed])
    return lines


def _found_table(found: pd.DataFrame, config: MixtureConfig) -> list[list[Text]]:
    titles = [
        "method",
        "features",
        "settings",
        "central mode found ↑",
        "at some time ↑",
        "modes of 5 ↑",
        "reward ↑",
    ]
    lines = [[Text(t) for t in titles]]
    for row in found.to_dict("records"):
        tail = f" [{decimal(row['found_low'], 2)}, {decimal(row['found_high'], 2)}]"
        features = "–" if row["features"] == ANY else map_figure.FEATURES[row["features"]]
        lines.append(
            [
                Text(config.rows[row["method"]].label),
                Text(features),
                Text(str(row["settings"])),
                Text(decimal(row["found"], 2), "", tail),
                *(Text(decimal(row[k], d)) for k, d in (("on_the_way", 2), ("modes", 1), ("reward", 2))),
            ]
        )
    return lines


def _absent(scores: pd.DataFrame, config: MixtureConfig) -> list[str]:
    """A sentence about the jobs of the configuration that have no scores, if there are such."""
    done = set(scores[["grid", "learning_rate", "seed"]].itertuples(index=False, name=None))
    absent = [
        f"{name} {rate:g} seed {seed}"
        for name, rate, seed in jobs_of_map(config)
        if (name, rate, seed) not in done
    ]
    return [f"A part of the map; not trained: {', '.join(absent)}."] if absent else []


def _caption(scores: pd.DataFrame, checked: pd.DataFrame, config: MixtureConfig) -> list[str]:
    choice = checks.choose(checked, config.setting.heights)
    if choice is None:
        chosen = f"No setting with {config.setting.heights} heights passes, so none can be chosen"
    else:
        chosen = (
            f"The rule in the configuration chooses learning rate {choice['learning_rate']:g}, "
            f"{choice['step']} iterations, reward width {choice['reward_width']:g}"
        )
    s = config.setting
    return [
        *_absent(scores, config),
        f"{int(checked['passes'].sum())} of {len(checked)} landscapes and lengths pass. {chosen}; the single "
        f"experiment has {s.learning_rate:g}, {s.iterations} and {s.reward_width:g}.",
        f"Checks: {config.rows[config.checks.reward_row].label} must learn the reward (rise, a share of what "
        "the base model leaves open), keep it (fall), have reached its plateau (growth over the last "
        "quarter) and still cover modes where half of the rise is reached; with shuffled rewards the "
        "mean reward must stay where it is (drift, a share of that rise) and the central mode stay unfound "
        "(chance, a share of the seeds).",
        "Found: at least 0.02 of the samples lie in the central cluster; share of settings and seeds, 95 % "
        f"bootstrap interval over {scores['seed'].nunique()} seeds and over the settings within a seed.",
    ]


def write(files: list[Path], config: MixtureConfig, out: Path) -> None:
    """``out/`` with scores.parquet (for the claims), settings.csv, table.csv, table.md and the figures."""
    scores = pd.concat([read_table(path) for path in files], ignore_index=True)
    checked = checks.table(scores, config.map.lengths, config.checks)
    evidence = judged(scores, checked, config)
    found = summary(scores, evidence, config)
    sections = [
        ("Where the central mode is found", _found_table(found, config)),
        ("Checks of the settings", _checks_table(checked)),
    ]
    keys = ["grid", "method", *AXES, "step"]
    measured = evidence[evidence["measure"] != checks.CENTRAL_MODE_FOUND]
    means = measured.pivot_table(index=keys, columns="measure", values="value").round(4).reset_index()
    means = means.merge(checked[[*checks.LANDSCAPE, "step", "passes"]], on=[*checks.LANDSCAPE, "step"])
    with replacing(out) as temporary:
        temporary.mkdir()
        evidence.to_parquet(temporary / "scores.parquet", index=False)
        found.to_csv(temporary / "table.csv", index=False)
        means.to_csv(temporary / "settings.csv", index=False)
        page = markdown("Gaussian mixture: a map over settings", sections, _caption(scores, checked, config))
        (temporary / "table.md").write_text(page)
        map_figure.draw(scores, checked, config, temporary)
