"""The gallery shows what was kept, the largest gaps first, in one file that asks no network for anything."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core.tables import write_table
from evaluation import images
from evaluation.scores import COLUMNS, IMAGE_COLUMNS
from reporting import gallery
from reporting.results import OwnSuite, RenderingSettings, Results, read
from tests.browser import needs_browser, open_browser, requested

PROMPTS, K = 3, 2
PROXY = {"base": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], "grpo": [[0.9, 0.3], [0.3, 0.5], [0.6, 0.9]]}
GOLD = {"base": [[0.5, 0.5], [0.5, 0.4], [0.6, 0.5]], "grpo": [[0.6, 0.5], [0.5, 0.1], [0.5, 0.6]]}
GREY = {("base", 0): 10, ("grpo", 2): 90, ("grpo", 4): 200}


@pytest.fixture
def results(tmp_path, monkeypatch) -> Results:
    rows, single = [], []
    for (method, step), grey in GREY.items():
        run = f"tiny-sd3__ocr__{method}__s1"
        pixels = (
            np.full((PROMPTS * K, 8, 8, 3), grey, np.uint8)
            + np.arange(PROMPTS * K, dtype=np.uint8)[:, None, None, None]
        )
        path = images.path_of(tmp_path / "runs" / run / "images", "ocr", step)
        images.write(path, pixels, k=K, suite="ocr", step=step, made_from="x")
        for metric, role, of in (("ocr", "proxy", PROXY), ("gold", "gold", GOLD)):
            cell = [
                run,
                "tiny-sd3",
                "ocr",
                method,
                1,
                step,
                "ocr",
                True,
                metric,
                role,
                np.mean(of[method]),
                6,
            ]
            rows.append(dict(zip(COLUMNS, cell, strict=True)))
            for prompt in range(PROMPTS):
                for image in range(K):
                    value = of[method][prompt][image]
                    entry = (run, step, "ocr", metric, prompt, image, value, 1.0)
                    single.append(dict(zip(IMAGE_COLUMNS, entry, strict=True)))
    write_table(pd.DataFrame(rows), tmp_path / "scores.parquet")
    write_table(pd.DataFrame(single), tmp_path / "image_scores.parquet")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"tag": "text", "prompt": f"sign </script> {i}"}) + "\n" for i in range(PROMPTS))
    )
    settings = RenderingSettings(
        methods={"base": "base model", "grpo": "GRPO"},
        bases=["tiny-sd3"],
        proxies={"ocr": "ocr"},
        suites={"ocr": OwnSuite(name="ocr", prompts=str(prompts))},
    )
    (tmp_path / "settings.yaml").write_text(json.dumps(settings.model_dump()))
    return read(tmp_path / "scores.parquet", tmp_path / "settings.yaml", tmp_path / "image_scores.parquet")


def data(path) -> list[dict]:
    (found,) = re.findall(
        r'<script id="data" type="application/json">(.*?)</script>', path.read_text(), re.DOTALL
    )
    return json.loads(found)


def test_every_image_and_score_is_there(results, tmp_path):
    gallery.render(results, tmp_path / "gallery.html")
    (place,) = data(tmp_path / "gallery.html")
    assert place["steps"] == {"base": [0], "grpo": [2, 4]} and place["tiles"] == [0, 0, 1, 1, 2, 2]
    assert place["scores"]["gold"]["grpo"][1] == np.ravel(GOLD["grpo"]).tolist()
    encoded = "".join(place["sprites"]["grpo"][1]).partition("base64,")[2]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
    assert sheet.shape == (2 * 8, 3 * 8, 3)  # six tiles, three a line
    assert [sheet[0, 8 * i, 0] for i in range(3)] == [200, 201, 202] and sheet[8, 0, 0] == 203


def test_prompts_are_left_out_where_the_file_would_be_large(results, tmp_path, monkeypatch):
    whole = gallery.share_of(results)
    monkeypatch.setattr(gallery, "BUDGET", 3 * PROMPTS * K * 8 * 8 * 3 * gallery.COMPRESSED * 0.4)
    assert whole == 1.0 and gallery.share_of(results) == pytest.approx(0.4)
    gallery.render(results, tmp_path / "gallery.html")
    (place,) = data(tmp_path / "gallery.html")
    assert len(place["prompts"]) == 1 and "1 of 3 prompts are here" in place["note"]


def test_without_images_the_page_says_so(results, tmp_path):
    for path in tmp_path.rglob("images/*.parquet"):
        path.unlink()
    gallery.render(results, tmp_path / "gallery.html")
    assert data(tmp_path / "gallery.html") == []


@needs_browser
def test_a_reader_sorts_and_picks(results, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    gallery.render(results, tmp_path / "gallery.html")
    driver = open_browser(tmp_path / "profile", "--host-resolver-rules=MAP * ~NOTFOUND")
    try:
        driver.get((tmp_path / "gallery.html").as_uri())

        def shown() -> list[list[str]]:
            lines = driver.find_elements(By.CSS_SELECTOR, "#shown tr")[1:]
            return [[cell.text for cell in line.find_elements(By.TAG_NAME, "td")] for line in lines]

        # In standard deviations over the base: gold fell from 0.4 to 0.1 on the second image of prompt 1.
        first = shown()[0]
        assert first == ["sign </script> 1", "proxy 0.40\ngold 0.40", "proxy 0.50\ngold 0.10"]
        Select(driver.find_element(By.ID, "sort")).select_by_value("proxy")
        assert [line[2].split("\n")[0] for line in shown()[:3]] == ["proxy 0.90", "proxy 0.90", "proxy 0.60"]
        Select(driver.find_element(By.ID, "sort")).select_by_value("prompt")
        assert [line[0][-1] for line in shown()] == list("001122")
        assert [option.text for option in Select(driver.find_element(By.ID, "step")).options] == [
            "0",
            "2",
            "4",
        ]
        Select(driver.find_element(By.ID, "step")).select_by_value("0")
        assert shown()[0][2] == "not kept"  # the base stands at every step, GRPO was not kept at this one
        driver.find_element(By.CSS_SELECTOR, "#methods input[value=grpo]").click()
        assert len(shown()[0]) == 2
        driver.find_element(By.ID, "wanted").send_keys("> 2")
        assert len(shown()) == 2
        assert not requested(driver)
        assert not [e for e in driver.get_log("browser") if e["level"] == "SEVERE"]
    finally:
        driver.quit()
