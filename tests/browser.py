"""Headless Chromium for the tests that look at pages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)"
)
# Headless, no first-run pages, and no connection of the browser's own.
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run
--disable-background-networking --disable-component-update --disable-sync --window-size=1700,850""".split()


def open_browser(folder: Path, *flags: str):
    """A driver with its profile in ``folder``; the caller quits it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, *flags, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, Service(DRIVER))


def requested(driver) -> set[str]:
    """Addresses that pages asked the network for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return {url for url in sent if url.startswith(("http:", "https:", "ws:", "wss:"))}


def check_report(path: Path, profile: Path, wanted: dict[str, str], opens_on: list[str]) -> None:
    """Open a report without a network: every category lists its result and shows it when asked to.

    ``wanted``: category -> label of one of its results; ``opens_on``: text seen first, beside the gallery.
    """
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions as ec
    from selenium.webdriver.support.wait import WebDriverWait

    driver = open_browser(profile, "--host-resolver-rules=MAP * ~NOTFOUND")
    try:
        wait = WebDriverWait(driver, 120)
        driver.get(path.resolve().as_uri())
        for text in opens_on:
            wait.until(lambda d, t=text: t in d.find_element(By.TAG_NAME, "body").text)
        driver.switch_to.frame(driver.find_element(By.CLASS_NAME, "gallery"))
        wait.until(lambda d: len(d.find_elements(By.CSS_SELECTOR, "#shown .tile")) > 1)
        driver.switch_to.default_content()
        for category, result in wanted.items():
            driver.get("about:blank")
            driver.get(path.resolve().as_uri())
            entry = (By.XPATH, f"//*[normalize-space(text())='{category}']")
            wait.until(ec.element_to_be_clickable(entry)).click()
            eye = (By.XPATH, f"//tr[td[normalize-space(.)='{result}']]//a[1]")
            wait.until(ec.element_to_be_clickable(eye)).click()
            if category == "Figures":
                picture = wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, "img[src^='data:image/png']"))
                wait.until(
                    lambda d, p=picture[0]: d.execute_script("return arguments[0].naturalWidth", p) > 300
                )
            else:
                frame = wait.until(lambda d: d.find_elements(By.TAG_NAME, "iframe"))[0]
                driver.switch_to.frame(frame)
                rows = wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, "table tr"))
                assert len(rows) > 1, f"{category}: {result} shows no table"
                driver.switch_to.default_content()
        assert not requested(driver), "the report asked the network for something"
        severe = [e["message"] for e in driver.get_log("browser") if e["level"] == "SEVERE"]
        assert not severe, severe
    finally:
        driver.quit()
