"""A real chromium, and the servers it looks at. Where chromium or axe-core is missing these tests skip and say so;
where SA2VA_LAB_BROWSER is "required" they fail instead."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATIENCE = 240  # seconds: nothing here waits for time to pass, so a slow machine is only slow
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def give_up():
    """give_up(reason) skips, or fails where a browser is required."""
    return pytest.fail if os.environ.get("SA2VA_LAB_BROWSER") == "required" else pytest.skip


@pytest.fixture(scope="session")
def browser(give_up):
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        give_up("no chromium was found: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=1000 * PATIENCE)
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=ARGUMENTS, timeout=1000 * PATIENCE)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def screenshots(root) -> Path:
    """Where pictures of what was seen are kept: outputs/browser, or SA2VA_LAB_SCREENSHOTS."""
    folder = Path(os.environ.get("SA2VA_LAB_SCREENSHOTS") or root / "outputs" / "browser")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def page(browser, screenshots, request):
    """A page of its own; what it showed last is kept as a picture, also where the test failed."""
    opened = browser.new_page(viewport={"width": 1500, "height": 1200})
    opened.set_default_timeout(1000 * PATIENCE)
    yield opened
    opened.screenshot(path=screenshots / f"{request.node.name}.png")
    opened.close()


@pytest.fixture
def serve(tmp_path, root):
    """serve(*arguments) starts `python -m ...` with a free port and returns its address; it ends with the test."""
    started = []

    def start(*arguments: str) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        home, log = tmp_path / "jupyter", tmp_path / "server.log"
        paths = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "RUNTIME")}
        here = os.environ | paths | {"PYTHONPATH": str(root), "JUPYTER_PLATFORM_DIRS": "1"}
        command = [sys.executable, "-m", *arguments, "--no-browser", f"--port={port}"]
        with open(log, "w") as out:
            server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=here)
        started.append(server)
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
        while server.poll() is None and time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
                return address  # not asked for a page: Voila would run the notebook for it
            except OSError:
                time.sleep(0.25)
        pytest.fail(f"{arguments[0]} does not answer: {log.read_text()[-2000:]}")

    yield start
    for server in started:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
