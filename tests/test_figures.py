"""Figures from synthetic data: files, panels, what is drawn, and errors that say what is wrong."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from evaluation import images as stored_images
from evaluation.scores import COLUMNS, KL, Images, Scores, last_step
from reporting import figure_style as style
from reporting.comparison import change_from_base
from reporting.figures import bars, baselines, curves, samples, tradeoff, turn
from reporting.trajectories import windowed

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
                    rows.append((*key, task, True, task, "proxy", proxy + noise[0], 8))
                    rows.append((*key, task, True, "gold", "gold", gold + noise[1], 8))
                    rows.append((*key, task, True, "vit", "unseen", 10 * (1 - 2 * hack) + noise[2], 8))
                    rows.append((*key, "other", False, "clip", "unseen", 0.3 - hack + noise[3], 8))
                    rows.append((*key, task, True, "diversity", "diversity", 0.2 - hack / 4, 8))
                    rows.append((*key, "model", False, KL, "cost", step**2 * 0.1, 8))
                rows.append((*key[:5], max(steps), "training", False, "images_generated", "cost", 640.0, 0))
    return pd.DataFrame(rows, columns=COLUMNS)


def history(seeds=2) -> pd.DataFrame:
    rows = [
        (f"b__{task}__{method}__s{seed}", "b", task, method, seed, step, name, step * 0.01 + seed)
        for task in TASKS
        for method in ("grpo", "gardo")
        for seed in range(seeds)
        for step in range(1, 31)
        for name in ("reward/proxy_mean", "reward/gold_mean", "train/kl_loss")
    ]
    return pd.DataFrame(rows, columns="run base task method seed step name value".split())


def check_files(stem):
    png, pdf = stem.with_suffix(".png").read_bytes(), stem.with_suffix(".pdf").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 5_000
    assert pdf.startswith(b"%PDF") and len(pdf) > 5_000


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_learning_curves_over_steps_and_images(tmp_path):
    figure = curves.logged_curves(history(), tmp_path / "new" / "curves", LABELS)
    check_files(tmp_path / "new" / "curves")
    assert len(figure.axes) == 2 * len(TASKS) and legend_texts(figure) == ["GRPO β=0", "GARDO"]
    line = figure.axes[0].lines[0]
    assert line.get_ydata()[14] == pytest.approx(0.15 + 0.5)  # mean over the two seeds at step 15
    assert len(figure.axes[0].collections) == 2  # one band per method
    one = curves.logged_curves(history(1), tmp_path / "one", LABELS)
    assert len(one.axes[0].collections) == 0
    counted = curves.over_images(history(), scores())  # 640 images in 20 steps
    figure = curves.logged_curves(counted, tmp_path / "images", LABELS, x=curves.IMAGES)
    assert figure.axes[0].lines[0].get_xdata()[14] == pytest.approx(15 * 32)
    assert figure.axes[-1].get_xlabel() == curves.IMAGES
    none = scores().query("metric != 'images_generated'")
    with pytest.raises(style.NothingToDraw, match="no run logged"):
        curves.logged_curves(curves.over_images(history(), none), tmp_path / "x", LABELS)


def test_evaluated_curves_start_at_the_base(tmp_path):
    data = scores().query("task == 'ocr' and suite == 'ocr'")
    figure = curves.evaluated_curves(data, tmp_path / "evaluated", LABELS, "ocr")
    titles = [ax.get_title() for ax in figure.axes if ax.axison]
    assert titles == ["ocr (proxy)", "gold", "vit (unseen)", "diversity"]
    base = data[(data["method"] == "base") & (data["metric"] == "gold")]["value"].mean()
    for line in figure.axes[1].lines:
        assert list(line.get_xdata()) == [0, 10, 20]
        assert line.get_ydata()[0] == pytest.approx(base)
    with pytest.raises(style.NothingToDraw, match="no trained run"):
        curves.evaluated_curves(data.query("method == 'base'"), tmp_path / "x", LABELS, "ocr")


def test_over_optimisation_is_over_the_kl_from_the_base(tmp_path):
    data = scores()
    figure = tradeoff.over_optimisation(data, tmp_path / "kl", LABELS)
    check_files(tmp_path / "kl")
    line = figure.axes[0].lines[0]
    assert list(line.get_xdata()) == pytest.approx([0, 10, 40])
    assert figure.axes[0].get_xscale() == "function" and len(figure.axes) == 2 * len(TASKS)
    # A planted task is measured on the suite of the task that it changes.
    planted = data[data["task"] == "ocr"].replace({"task": {"ocr": "planted"}})
    gold = tradeoff.over_optimisation(planted, tmp_path / "p", LABELS).axes[1]
    assert len(gold.lines[0].get_ydata()) == 3
    with pytest.raises(style.NothingToDraw, match=KL):
        tradeoff.over_optimisation(data[data["metric"] != KL], tmp_path / "x", LABELS)


def course(seeds=3, exploit=False) -> pd.DataFrame:
    """Windows of three methods: one whose gold turns at half of its training, one that rises, a control."""
    x, rows = np.arange(1, 31) / 30, []
    gold = {"grpo": 0.5 - (x - 0.5) ** 2, "gardo": 0.3 + 0.2 * x, "shuffled": 0.3 - 0.1 * x}
    for task in TASKS:
        for method, values in gold.items():
            for seed in range(seeds):
                key = (f"b__{task}__{method}__s{seed}", "b", task, method, seed)
                proxy = 0.5 + 0.4 * x * (method != "shuffled")
                named = {"gold": values, "proxy": proxy} | ({"exploit_rate": x} if exploit else {})
                for name, curve in named.items():
                    logged = enumerate(curve + 0.01 * seed, start=1)
                    rows += [(*key, step, f"reward/{name}_mean", v) for step, v in logged]
    columns = "run base task method seed step name value".split()
    return windowed(pd.DataFrame(rows, columns=columns), 10)


TURN = (LABELS | {"shuffled": "shuffled rewards"}, ["grpo", "gardo"], "shuffled")


def test_the_turn_of_gold_is_marked_beside_the_control(tmp_path):
    curves = course()
    figure = turn.over_steps(curves[curves["task"] == "ocr"], tmp_path / "turn", *TURN)
    check_files(tmp_path / "turn")
    assert [ax.get_title() for ax in figure.axes] == ["proxy", "gold"]
    assert legend_texts(figure) == ["GRPO β=0", "GARDO", "shuffled rewards"]
    gold = figure.axes[1]
    assert "3 steps" in gold.get_xlabel() and len(gold.collections) == 3  # a band per method
    grpo, marked, _, rising, control, falling = gold.lines
    assert list(grpo.get_xdata()) == pytest.approx(np.arange(1.5, 30, 3))
    assert marked.get_xdata()[0] in (13.5, 16.5) and marked.get_ydata()[0] == max(grpo.get_ydata())
    assert rising.get_xdata()[0] == 28.5 and falling.get_xdata()[0] == 1.5
    assert control.get_color() == turn.CONTROL["color"] != grpo.get_color() and control.is_dashed()
    planted = course(1, exploit=True)
    figure = turn.over_steps(planted[planted["task"] == "ocr"], tmp_path / "planted", *TURN)
    assert [ax.get_title() for ax in figure.axes] == ["proxy", "gold", "exploit rate"]
    assert not figure.axes[0].collections  # one seed has no band


def test_proxy_versus_gold(tmp_path):
    curves = course()
    figure = turn.gold_over_proxy(curves, tmp_path / "goodhart", *TURN)
    check_files(tmp_path / "goodhart")
    assert len(figure.axes) == len(TASKS) and "start of training" in legend_texts(figure)
    path, last = figure.axes[0].lines[:2]
    grpo = curves[(curves["method"] == "grpo") & (curves["task"] == figure.axes[0].get_title()[3:])]
    assert path.get_ydata() == pytest.approx(grpo.groupby("step")["gold"].mean().to_numpy())
    assert np.all(np.diff(path.get_xdata()) > 0) and last.get_xdata()[0] == path.get_xdata()[-1]


def test_a_turn_without_its_runs_is_not_drawn(tmp_path):
    curves, nothing = course(), windowed(history().iloc[:0], 10)
    for draw in (turn.over_steps, turn.gold_over_proxy):
        with pytest.raises(style.NothingToDraw, match="no run logged"):
            draw(nothing, tmp_path / "x", *TURN)
        with pytest.raises(style.NothingToDraw, match="none of grpo, gardo logged"):
            draw(curves[curves["method"] == "shuffled"], tmp_path / "x", *TURN)
        with pytest.raises(ValueError, match="without a label.*shuffled"):
            draw(curves, tmp_path / "x", LABELS, *TURN[1:])


def test_pareto_and_its_mean_unseen(tmp_path):
    data = scores()
    figure = tradeoff.pareto(data, tmp_path / "pareto", LABELS)
    check_files(tmp_path / "pareto")
    assert len(figure.axes) == len(TASKS) and len(figure.axes[0].containers) == len(LABELS)
    few = tradeoff.pareto(data, tmp_path / "few", LABELS, shown=["base", "grpo"])
    assert legend_texts(few)[-1] == "other methods" and len(few.axes[0].containers) == 2
    last = last_step(data[(data["task"] == "ocr") & (data["role"] == "unseen")])
    unseen = change_from_base(last).groupby("method").mean()
    assert unseen["base"] == pytest.approx(0.0) and unseen["grpo"] < -1 < unseen["gardo"]
    # A metric that one run lacks must not count for the others.
    partial = last.iloc[:1].assign(metric="partial", value=99.0)
    assert change_from_base(pd.concat([last, partial])).equals(change_from_base(last))
    # Another unit of a metric must not change its weight.
    scaled = last.assign(value=last["value"].where(last["metric"] != "vit", last["value"] * 1000))
    assert change_from_base(scaled).groupby("method").mean()["grpo"] == pytest.approx(unseen["grpo"])


def test_accuracy_by_count_and_diversity(tmp_path):
    counts, rows, images = [1, 1, 2, 10], [], {}
    for method in LABELS:
        for seed in range(2):
            run = f"b__counting__{method}__s{seed}"
            for metric, kept in (("accuracy_1_9", [0, 1, 2]), ("accuracy_10", [3])):
                rows.append(
                    (run, "b", "counting", method, seed, 5, "counting", True, metric, "unseen", 0.5, 8)
                )
                values = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.5, 0.5]])[kept]
                images[(run, 5, "counting", metric)] = Images(np.array(kept), values)
    data = pd.DataFrame(rows, columns=scores().columns)
    figure = bars.accuracy_by_count(Scores(data, images), counts, tmp_path / "counting", LABELS)
    check_files(tmp_path / "counting")
    points = figure.axes[0].containers[0].lines[0]
    assert points.get_ydata() == pytest.approx([0.75, 0.0, 0.5])
    with pytest.raises(style.NothingToDraw, match="counting"):
        bars.accuracy_by_count(Scores(scores(), images), counts, tmp_path / "x", LABELS)
    figure = bars.diversity(Scores(scores()), tmp_path / "diversity", LABELS)
    check_files(tmp_path / "diversity")
    shown = [c.lines[0].get_xdata()[0] for c in figure.axes[0].containers]
    assert shown == pytest.approx([20, 15, 20])


@pytest.fixture
def pictured(tmp_path):
    """Runs with random images and the scores of each: proxy 1 for the first image of all prompts."""
    prompts, rows, images = [{"prompt": f"a red {i} on grey"} for i in range(4)], [], {}
    for method, steps in {"base": [0], "grpo": [5, 10], "gardo": [5, 10]}.items():
        run = f"b__ocr__{method}__s1"
        folder = tmp_path / "runs" / run / "images"
        folder.mkdir(parents=True)
        for step in steps:
            pixels = np.random.default_rng(step).integers(0, 256, (8, 6, 6, 3), dtype=np.uint8)
            path = stored_images.path_of(folder, "ocr", step)
            stored_images.write(path, pixels, k=2, suite="ocr", step=step, made_from="numbers")
            rows.append((run, "b", "ocr", method, 1, step, "ocr", True, "ocr", "proxy", 0.5, 8))
            for metric in ("ocr", "aesthetic", "gold"):
                values = np.tile([1.0, 0.0] if metric == "ocr" else [0.0, 1.0], (4, 1))
                images[(run, step, "ocr", metric)] = Images(np.arange(4), values)
    return pd.DataFrame(rows, columns=scores().columns), tmp_path / "runs", images, prompts


def test_samples_show_every_method_step_and_the_most_uncertain(pictured, tmp_path):
    data, runs, images, prompts = pictured
    methods = ["base", "grpo", "absent", "gardo"]
    common = ("ocr", prompts, LABELS)
    grid = samples.SampleGrid(methods=methods, prompts=3, images_per_method=2)
    figure = samples.sample_grid(data, runs, *common, grid, tmp_path / "grid")
    check_files(tmp_path / "grid")
    assert len(figure.axes) == 3 * 3 and figure.axes[0].get_title() == "base model"
    steps = samples.SampleSteps(methods=methods, prompts=3)
    figure = samples.sample_steps(data, runs, *common, steps, tmp_path / "steps")
    assert [ax.get_title() for ax in figure.axes[:3]] == ["step 0", "step 5", "step 10"]
    gate = SimpleNamespace(proxy="ocr", auxiliary=["aesthetic"])
    spec = samples.Uncertain(methods=methods, images=2)
    figure = samples.most_uncertain(data, runs, images, *common, gate, spec, tmp_path / "gate")
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:4] == ["U = 0.50", "U = 0.50", "U = −0.50", "U = −0.50"] and len(titles) == 2 * 2 * 3
    assert figure.axes[0].get_xlabel() == "proxy 1.00\ngold 0.00"
    with pytest.raises(style.NothingToDraw, match="no single-image scores of ocr and aesthetic"):
        samples.most_uncertain(data, runs, {}, *common, gate, spec, tmp_path / "x")
    with pytest.raises(style.NothingToDraw, match="absent"):
        samples.load_images(runs / "b__ocr__grpo__s1", "ocr", 99, np.arange(4))


def test_one_seed_one_task_any_names(tmp_path):
    data = scores(seeds=1).replace({"method": {"gardo": "new_method"}})
    data, labels = data[data["task"] == "ocr"], {"base": "base", "grpo": "grpo", "new_method": "new_method"}
    for draw in (tradeoff.pareto, tradeoff.over_optimisation):
        figure = draw(data, tmp_path / "x", labels)
        assert "new_method" in legend_texts(figure)


def test_equal_data_give_equal_files(tmp_path):
    for name in ("a", "b"):
        tradeoff.pareto(scores(), tmp_path / name, LABELS)
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_styles_stay_apart():
    methods = ["base", *(f"m{i}" for i in range(40))]
    styles = style.method_styles(methods, "base")
    looks = {(s["color"], s["linestyle"]) for m, s in styles.items() if m != "base"}
    assert len(looks) == 40
    assert style.method_styles(methods[:4], "base")["m2"] == styles["m2"]


def test_errors_name_the_fault(tmp_path):
    data = scores()
    with pytest.raises(ValueError, match="without a label.*gardo"):
        tradeoff.pareto(data, tmp_path / "x", {"base": "b", "grpo": "g"})
    two = pd.concat([data, data[data["role"] == "proxy"].assign(metric="partial")])
    with pytest.raises(ValueError, match="expected one proxy.*partial"):
        tradeoff.pareto(two, tmp_path / "x", LABELS)
    tradeoff.pareto(two, tmp_path / "x", LABELS, proxies={"ocr": "ocr", "geneval": "geneval"})
    with pytest.raises(style.NothingToDraw, match="no base and task"):
        tradeoff.pareto(data[data["role"] != "unseen"], tmp_path / "x", LABELS)


def test_rows_without_training_are_one_curve_from_the_base(tmp_path):
    data, rows = scores(), []
    for task in TASKS:
        for n, kl in (("best_of_16", 1.8), ("best_of_4", 0.6)):
            key = (f"b__{task}__{n}__s0", "b", task, n, 0, 0)
            rows.append((*key, task, True, task, "proxy", 0.4 + kl / 10, 8))
            rows.append((*key, task, True, "gold", "gold", 0.5 + kl / 20, 8))
            rows.append((*key, task, True, "vit", "unseen", 10.0, 8))
            rows.append((*key, task, True, "diversity", "diversity", 0.2, 8))
            rows.append((*key, "model", False, KL, "cost", kl, 8))
    data = pd.concat([data, pd.DataFrame(rows, columns=COLUMNS)], ignore_index=True)
    labels = {**LABELS, "best_of_4": "best of 4", "best_of_16": "best of 16"}
    references = {"best of n": ["best_of_16", "best_of_4"]}
    figure = tradeoff.over_optimisation(data, tmp_path / "kl", labels, references=references)
    assert legend_texts(figure)[-1] == "best of n" and "best of 4" not in legend_texts(figure)
    assert list(figure.axes[0].lines[-1].get_xdata()) == pytest.approx([0, 0.6, 1.8])
    one = data[data["task"] == TASKS[0]]
    settings = {"proxies": {TASKS[0]: TASKS[0]}, "references": references}
    figure = baselines.baselines(last_step(one), tmp_path / "baselines", labels, **settings)
    check_files(tmp_path / "baselines")
    assert len(figure.axes) == 6 and legend_texts(figure)[-1] == "best of n"
    assert [ax.get_xlabel() for ax in figure.axes[-2:]] == ["proxy", "KL from the base (nats per image)"]
    with pytest.raises(style.NothingToDraw, match=KL):
        baselines.baselines(one[one["metric"] != KL], tmp_path / "x", labels, **settings)
