"""``kpm explore``: what it refuses, the page it makes, and that page in a browser.

``KPM_SCREENSHOTS=figures pytest -m browser tests/workbook/test_explore_page.py`` renews the pictures of the page.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import torch

from kpm import cli, environment, paths
from kpm.errors import UserError
from kpm.models.channel_basis import ChannelBasis
from kpm.training import checkpoint
from kpm.workbook import explore_page, results
from kpm.workbook.explorer_timing import time_moves
from kpm.workbook.results import Checkpoint, Result
from tests.metrics.toys import autoencoder, judge

CLASSES = {"skin": 6, "pants": 6, "top": 6, "hair": 6, "action": 9}
PARTITION = {"skin": [0, 3], "pants": [1], "top": [2, 5], "hair": [4, 6, 7]}
SHIPPED = paths.checkpoints() / "ssm_skd_sprites.safetensors"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --window-size=1100,1000""".split()  # noqa: SIM905


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A shipped model of puppets and its judge, both untrained."""
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    meta = {"data": {"train": {"name": "puppets", "source": "synthetic"}}, "progress": {}}
    checkpoint.save_model(paths.checkpoints() / "toy.safetensors", autoencoder(), meta)
    checkpoint.save_model(paths.checkpoints() / "judge_puppets.safetensors", judge(CLASSES), meta)
    (tmp_path / "evaluate_toy.json").write_text(json.dumps({"partition": PARTITION}))
    return tmp_path


@pytest.fixture
def result(home):
    """The results file of the shipped model."""
    value = Result(
        name="toy",
        dataset="puppets",
        source="synthetic",
        split="test",
        metrics={"mse": 0.5},
        paper={},
        seeds=[1],
        steps=1,
        wall_s=1.0,
        hardware="none",
        checkpoint=Checkpoint.of(paths.checkpoints() / "toy.safetensors"),
        command="kpm train",
        commit=None,
        environment=environment.report(),
        details={"partition": PARTITION},
    )
    results.save(value)
    return value


def complaint(capsys, *words):
    assert cli.main(["explore", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("kpm: ") and said.count("\n") == 1
    return said


def test_what_does_not_fit_is_refused_in_one_line(home, capsys):
    assert "no checkpoint 'nothing'; shipped are toy, or" in complaint(capsys, "nothing")
    assert "holds a 'Judge'" in complaint(capsys, "judge_puppets")
    assert "films: expected at least 3, got 2" in complaint(capsys, "toy", "--films", "2")
    assert "no independent axes in the results of 'toy'" in complaint(capsys, "toy", "--components", "independent")
    (home / "bad.json").write_text('{"partition": {"skin": [99]}}')
    assert "no component 99, there are 9" in complaint(capsys, "toy", "--partition", str(home / "bad.json"))
    (home / "bad.json").write_text("[]")
    assert "'bad.json' has no components per factor" in complaint(capsys, "toy", "--partition", str(home / "bad.json"))
    assert "unknown split" in complaint(capsys, "toy", "--split", "tst")


@pytest.mark.skipif(not SHIPPED.is_file(), reason="no checkpoint of real films is shipped")
def test_a_model_of_real_films_is_not_explored_on_a_stand_in(capsys):
    assert "dataset 'sprites' is not here" in complaint(capsys, "ssm_skd_sprites")


def test_components_are_those_of_the_results_of_these_weights(home, result):
    gallery = explore_page.open_gallery("toy", films=4)
    assert gallery.partition == {f: tuple(c) for f, c in PARTITION.items()} and gallery.rest == (8,)
    assert gallery.exchanges == ("static", "dynamic", "skin", "pants", "top", "hair", "rest")
    assert gallery.data.name == "puppets" and set(gallery.redrawn[0].readings) == set(CLASSES)
    checkpoint.save_model(
        paths.checkpoints() / "toy.safetensors", autoencoder(seed=5), checkpoint.read(home / result.checkpoint.file)[1]
    )
    assert explore_page.open_gallery("toy", films=4).partition == {}
    given = explore_page.open_gallery("toy", films=4, partition=str(home / "evaluate_toy.json"))
    assert given.partition == {f: tuple(c) for f, c in PARTITION.items()}


def test_independent_axes_come_with_their_own_partition(home, result):
    basis = ChannelBasis.of(torch.randn(9, 9, generator=torch.Generator().manual_seed(2)))
    turned = {"partition": {"skin": [2]}, "analysis": basis.analysis.tolist()}
    results.save(dataclasses.replace(result, details={**result.details, "independent": turned}))
    gallery = explore_page.open_gallery("toy", films=4, components="independent")
    assert gallery.kind == "axis" and gallery.partition == {"skin": (2,)}
    torch.testing.assert_close(gallery.parts.modes.sum(2), gallery.parts.static, rtol=1e-3, atol=1e-3)


def test_without_a_judge_there_are_pictures_only(home):
    (paths.checkpoints() / "judge_puppets.safetensors").unlink()
    assert not explore_page.open_gallery("toy", films=4).redrawn[0].readings
    with pytest.raises(UserError, match="no checkpoint 'judge_puppets'"):
        explore_page.open_gallery("toy", films=4, judge="judge_puppets")


def test_the_page_is_calls_of_the_package_only():
    notebook = explore_page.page({"name": "a'b", "films": 4, "partition": None})
    nbformat.validate(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].endswith('gallery = explore_page.open_gallery(name="a\'b", films=4, partition=None)')
    assert len(code) == 2 + 2 * len(explore_page.SECTIONS) and all(len(c.splitlines()) == 1 for c in code[1:])
    assert not any("def " in c or "lambda" in c for c in code)


def test_times_are_printed(home, capsys, monkeypatch):
    monkeypatch.setattr(explore_page, "time_moves", functools.partial(time_moves, repeats=1))
    assert cli.main(["explore", "toy", "--films", "4", "--time"]) == 0
    said = capsys.readouterr().out
    assert (
        "puppets" in said and len(re.findall(r"^  (swap|channel|hull|eigenvalue) .* \d+ +\d+ +\d+$", said, re.M)) == 8
    )


@pytest.mark.slow
@pytest.mark.parametrize("works", [True, False])
def test_check_says_whether_the_page_works(home, capfd, monkeypatch, works):
    if not works:
        monkeypatch.setattr(explore_page, "page", functools.partial(_spoilt, explore_page.page))
    assert cli.main(["explore", "toy", "--films", "4", "--check"]) == (0 if works else 1)
    assert ("the page works: 4 explorers" if works else "a cell of it failed") in capfd.readouterr().out


def _spoilt(page, asked):
    notebook = page(asked)
    notebook.cells[-3].source = "1 / 0"
    return notebook


# In a browser


@contextlib.contextmanager
def browsing(folder: Path, *words: str):
    """A headless Chromium on the page of ``kpm explore WORDS``."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs pip install selenium")
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("no chromium and chromedriver (Debian: apt install chromium-driver)")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kpm.cli", "explore", *words, "--no-browser", "--port", str(port)]
    server = subprocess.Popen(command, env=dict(os.environ))
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={folder / 'profile'}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    try:
        began = time.monotonic()
        while server.poll() is None and time.monotonic() - began < 240:
            with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
                break
            time.sleep(0.3)
        assert server.poll() is None
        driver.set_page_load_timeout(240)
        driver.get(f"http://localhost:{port}/")
        WebDriverWait(driver, 120).until(lambda d: d.find_elements(By.ID, explore_page.READY))
        WebDriverWait(driver, 30).until(lambda d: len(d.find_elements(By.CSS_SELECTOR, ".widget-image")) == 5)
        yield driver
    finally:
        driver.quit()
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


def changed(driver, place: int, move) -> bool:
    """Whether `move` changes the picture of an explorer: the image it shows, and its pixels."""
    from selenium.webdriver.support.ui import WebDriverWait

    images = driver.find_elements("css selector", ".widget-image")
    image, before = images[place], images[place].screenshot_as_png
    source = image.get_attribute("src")
    move()
    WebDriverWait(driver, 20, 0.05).until(lambda _: image.get_attribute("src") != source)
    time.sleep(0.3)
    return image.screenshot_as_png != before


def try_the_controls(driver, exchange: str) -> None:
    """Move a control of three explorers by mouse."""
    from selenium.webdriver.common.action_chains import ActionChains

    buttons = {b.text: b for b in driver.find_elements("tag name", "button")}
    assert changed(driver, 0, buttons[exchange].click)
    handle = driver.find_elements("css selector", ".widget-slider .noUi-handle")[0]
    assert changed(driver, 1, lambda: ActionChains(driver).drag_and_drop_by_offset(handle, -90, 0).perform())
    points = [b for b in driver.find_elements("tag name", "button") if (b.get_attribute("title") or "").startswith("λ")]
    assert changed(driver, 4, points[-1].click) and changed(driver, 3, points[0].click)
    assert not driver.find_elements("css selector", "[data-mime-type='application/vnd.jupyter.error']")


def picture(driver, place: int, path: Path) -> None:
    """A screenshot of one explorer, its controls and picture."""
    image = driver.find_elements("css selector", ".widget-image")[place]
    path.write_bytes(
        image.find_element("xpath", "./ancestor::div[contains(@class, 'widget-vbox')][1]").screenshot_as_png
    )


@pytest.mark.browser
def test_moving_a_control_changes_the_picture_in_a_browser(home, tmp_path):
    flags = ["--films", "4", "--partition", str(home / "evaluate_toy.json")]
    with browsing(tmp_path, "toy", *flags) as driver:
        try_the_controls(driver, "channels of hair")
        picture(driver, 0, tmp_path / "swap.png")
    assert (tmp_path / "swap.png").stat().st_size > 5000


@pytest.mark.browser
@pytest.mark.real
@pytest.mark.skipif(not SHIPPED.is_file(), reason="no checkpoint of real films is shipped")
def test_the_page_of_the_real_films(real_sprites, tmp_path):
    known = explore_page.open_gallery("ssm_skd_sprites", films=3).exchanges
    with browsing(tmp_path, "ssm_skd_sprites") as driver:
        try_the_controls(driver, "channels of hair" if "hair" in known else "dynamic part")
        folder = Path(os.environ.get("KPM_SCREENSHOTS") or tmp_path)
        for place, name in enumerate(("swap", "channel")):
            picture(driver, place, folder / f"explorer_{name}.png")
            assert (folder / f"explorer_{name}.png").stat().st_size < 200_000
