"""What a person sees after `make ui`: curves and samples first, and a table of the runs with their scores."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from browser import needs_browser, open_browser
from test_tracking import SCORES, make_run

from reporting import tracking

pytestmark = needs_browser
RUNS = [f"sd3__counting__{method}__s{seed}" for method in ("grpo", "kl", "gardo") for seed in range(2)]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Address that the ui command prints, with its server running on a free loopback port."""
    folder = tmp_path_factory.mktemp("ui")
    uri = f"sqlite:///{folder}/results/mlflow.db"
    for run in RUNS:
        tracking.log_run(make_run(folder, run, steps=20), None, uri, tracking.EXPERIMENT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "reporting.tracking", "ui", "--tracking-uri", uri, "--port", str(port)]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parents[1],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        address = server.stdout.readline().strip()
        wait_until_up(f"http://127.0.0.1:{port}/health", server, folder / "server.log")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        server.stdout.close()


def wait_until_up(health: str, server: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    """Return once the server answers; raise RuntimeError with its log if it ends or stays silent."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            direct.open(health, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the MLflow server did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = open_browser(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


def test_curves_samples_and_then_the_table_are_visible(page, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions as ec
    from selenium.webdriver.support.wait import WebDriverWait

    wait = WebDriverWait(browser, 60)
    browser.set_window_size(1700, 1250)  # charts below the lower edge are not drawn
    browser.get(page)
    # Close the assistant, which opens by itself on a first visit, and the notice about the saved view.
    for component in ("mlflow.assistant.chat_panel.close", "mlflow.experiment_page.shared_view.dismiss"):
        button = (By.CSS_SELECTOR, f"[data-component-id='{component}']")
        wait.until(ec.element_to_be_clickable(button)).click()
        wait.until(ec.invisibility_of_element_located(button))

    for title in ("reward/proxy_mean", "reward/gold_mean", "reward/gap", "samples/test"):
        wait.until(lambda d, title=title: title in d.find_element(By.TAG_NAME, "body").text)
    wait.until(lambda d: len(d.find_elements(By.CSS_SELECTOR, ".rc-image img")) == len(RUNS))
    if target := os.environ.get("GOODHART_UI_SCREENSHOT"):
        assert browser.save_screenshot(target)
    as_table = browser.find_element(By.CSS_SELECTOR, "[name='runs-view-mode'][value='TABLE']")
    browser.execute_script("arguments[0].click()", as_table)

    for run in RUNS:
        wait.until(ec.visibility_of_element_located((By.LINK_TEXT, run)))
    expected = {f"{role}/test_{metric}" for role, metric in SCORES.items()}
    for name in expected:
        wait.until(ec.visibility_of_element_located((By.CSS_SELECTOR, f"[data-testid='sort-header-{name}']")))
    gold = "[role='gridcell'][col-id='metrics.`gold/test_count_exact`']"
    values = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, gold)]
    assert sorted(values) == ["0.8"] * 3 + ["0.81"] * 3
