"""A real chromium, and the servers it looks at. Without chromium these tests skip and say so; where
SA2VA_LAB_BROWSER is "required" they fail instead."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def browser():
    path = shutil.which("chromium")
    if path is None:
        reason = "no chromium was found: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("SA2VA_LAB_BROWSER") == "required" else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    opened = browser.new_page(viewport={"width": 1500, "height": 1200})
    opened.set_default_timeout(30_000)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def screenshots(root) -> Path:
    """Where pictures of what was seen are kept: outputs/browser, or SA2VA_LAB_SCREENSHOTS."""
    folder = Path(os.environ.get("SA2VA_LAB_SCREENSHOTS") or root / "outputs" / "browser")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def serve(tmp_path, root):
    """serve(*arguments) starts `python -m ...` with a free port and returns its address; it ends with the test."""
    started = []

    def start(*arguments: str) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        home = tmp_path / "jupyter"
        paths = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "RUNTIME")}
        here = os.environ | paths | {"PYTHONPATH": str(root), "JUPYTER_PLATFORM_DIRS": "1"}
        log = open(tmp_path / "server.log", "w")  # noqa: SIM115 - it lives as long as the server
        command = [sys.executable, "-m", *arguments, "--no-browser", f"--port={port}"]
        started.append((subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=here), log))
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(address, timeout=60).close()
                return address
            except OSError:
                time.sleep(0.25)
        pytest.fail(f"no server within a minute: {(tmp_path / 'server.log').read_text()[-2000:]}")

    yield start
    for process, log in started:
        process.terminate()
        process.wait(20)
        log.close()
