"""Figures from synthetic data: files, panels, what is drawn, and errors that say what is wrong."""

import numpy as np
import pandas as pd
import pytest

from evaluation import figures

LABELS = {"base": "base model", "grpo": "GRPO β=0", "gardo": "GARDO"}
TASKS = ("geneval", "ocr")


def scores(seeds=3, steps=(10, 20)) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for task in TASKS:
        for method in LABELS:
            for seed in range(seeds):
                for step in (0,) if method == "base" else steps:
                    key = (f"b__{task}__{method}__s{seed}", "b", task, method, seed, step)
                    hack = step * (method == "grpo") / 100
                    proxy, gold, noise = 0.4 + step / 100, 0.5 + step / 200 - hack, rng.normal(0, 0.01, 4)
                    rows.append((*key, task, task, "proxy", proxy + noise[0], 8))
                    rows.append((*key, task, "gold", "gold", gold + noise[1], 8))
                    rows.append((*key, task, "vit", "unseen", 10 * (1 - 2 * hack) + noise[2], 8))
                    rows.append((*key, "other", "clip", "unseen", 0.3 - hack + noise[3], 8))
    columns = "run base task method seed step suite metric role value n_images".split()
    return pd.DataFrame(rows, columns=columns)


def history(seeds=2) -> pd.DataFrame:
    rows = [
        (f"b__{task}__{method}__s{seed}", "b", task, method, seed, step, name, step * 0.01 + seed)
        for task in TASKS
        for method in ("grpo", "gardo")
        for seed in range(seeds)
        for step in range(1, 31)
        for name in ("reward/proxy_mean", "reward/gold_mean", "kl/loss")
    ]
    return pd.DataFrame(rows, columns="run base task method seed step name value".split())


def check_files(stem):
    png, pdf = stem.with_suffix(".png").read_bytes(), stem.with_suffix(".pdf").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 10_000
    assert pdf.startswith(b"%PDF") and len(pdf) > 5_000


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_learning_curves(tmp_path):
    figure = figures.learning_curves(history(), tmp_path / "new" / "curves", LABELS)
    check_files(tmp_path / "new" / "curves")
    assert len(figure.axes) == 2 * len(TASKS) and legend_texts(figure) == ["GRPO β=0", "GARDO"]
    line = figure.axes[0].lines[0]
    assert line.get_ydata()[14] == pytest.approx(0.15 + 0.5)  # mean over the two seeds at step 15
    assert len(figure.axes[0].collections) == 2  # one band per method
    one = figures.learning_curves(history(1), tmp_path / "one", LABELS)
    assert len(one.axes[0].collections) == 0


def test_proxy_versus_gold(tmp_path):
    data = scores()
    figure = figures.proxy_versus_gold(data, tmp_path / "goodhart", LABELS)
    check_files(tmp_path / "goodhart")
    assert len(figure.axes) == len(TASKS) and legend_texts(figure) == list(LABELS.values())
    curve = next(x for x in figure.axes[0].lines if len(x.get_xdata()) == 3)
    base = data[(data["task"] == "geneval") & (data["method"] == "base")].groupby("role")["value"].mean()
    assert (curve.get_xdata()[0], curve.get_ydata()[0]) == pytest.approx((base["proxy"], base["gold"]))
    assert np.all(np.diff(curve.get_xdata()) > 0)


def test_pareto_and_its_mean_unseen(tmp_path):
    data = scores()
    figure = figures.pareto(data, tmp_path / "pareto", LABELS)
    check_files(tmp_path / "pareto")
    assert len(figure.axes) == len(TASKS) and len(figure.axes[0].containers) == len(LABELS)
    last = figures.last_step(data[data["task"] == "ocr"])
    unseen = figures.mean_unseen(last).groupby("method").mean()
    assert unseen["base"] == pytest.approx(0.0) and unseen["grpo"] < -1 < unseen["gardo"]
    # A metric that one run lacks must not count for the others.
    partial = last.iloc[:1].assign(role="unseen", metric="partial", value=99.0)
    assert figures.mean_unseen(pd.concat([last, partial])).equals(figures.mean_unseen(last))
    # Another unit of a metric must not change its weight.
    scaled = last.assign(value=last["value"].where(last["metric"] != "vit", last["value"] * 1000))
    assert figures.mean_unseen(scaled).groupby("method").mean()["grpo"] == pytest.approx(unseen["grpo"])


def test_one_seed_one_task_any_names(tmp_path):
    data = scores(seeds=1).replace({"method": {"gardo": "new_method"}})
    data = data[data["task"] == "ocr"]
    for name in ("proxy_versus_gold", "pareto"):
        figure = getattr(figures, name)(data, tmp_path / name)
        assert len(figure.axes) == 1 and "new_method" in legend_texts(figure)


def test_equal_data_give_equal_files(tmp_path):
    for name in ("a", "b"):
        figures.pareto(scores(), tmp_path / name, LABELS)
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_styles_stay_apart():
    methods = ["base", *(f"m{i}" for i in range(24))]
    styles = figures.method_styles(methods, "base")
    looks = {(s["color"], s["linestyle"]) for m, s in styles.items() if m != "base"}
    assert len(looks) == 24
    assert figures.method_styles(methods[:4], "base")["m2"] == styles["m2"]


def test_errors_name_the_fault(tmp_path):
    data = scores()
    with pytest.raises(ValueError, match="without a label.*gardo"):
        figures.pareto(data, tmp_path / "x", {"base": "b", "grpo": "g"})
    two = pd.concat([data, data[data["role"] == "proxy"].assign(metric="partial")])
    with pytest.raises(ValueError, match="expected one proxy.*partial"):
        figures.pareto(two, tmp_path / "x", LABELS)
    figures.pareto(two, tmp_path / "x", LABELS, proxies={"ocr": "ocr", "geneval": "geneval"})
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.proxy_versus_gold(data[data["role"] != "gold"], tmp_path / "x", LABELS)
