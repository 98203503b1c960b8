"""Hub ids, against a small stand-in of the hub on this machine; each question in a process of its own, online."""

import hashlib
import json
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest

from sa2va_lab.errors import LabError
from sa2va_lab.loading.hub import fetch_model, is_hub_id
from sa2va_lab.loading.inventory import read_inventory

NAME, COMMIT = "some-lab/Sa2VA-Tiny", "c" * 40


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks for one model: its commit, its tree, its files or parts of them."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def log_message(self, *said):
        pass

    def answer(self):
        path = self.path.split("?")[0]
        self.server.asked.append((self.command, path))
        files = {file.name: file for file in self.server.folder.iterdir()}
        if path.startswith(f"/api/models/{NAME}/tree/"):
            tree = [{"type": "file", "path": n, "size": f.stat().st_size, "oid": digest(n)} for n, f in files.items()]
            return self.send(json.dumps(tree).encode())
        if path.startswith(f"/api/models/{NAME}"):
            return self.send(json.dumps({"id": NAME, "sha": COMMIT, "siblings": []}).encode())
        file = files.get(path.rsplit("/", 1)[-1])
        if not path.startswith(f"/{NAME}/resolve/") or file is None:
            return self.send(b"{}", status=404, extra={"X-Error-Code": "RepoNotFound"})
        content, extra = file.read_bytes(), {"ETag": f'"{digest(file.name)}"', "X-Repo-Commit": COMMIT}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), int(match[2] or len(content) - 1)
            extra["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            self.server.sent.append((file.name, end + 1 - start))
            return self.send(content[start : end + 1], status=206, extra=extra)
        if self.command == "GET":
            self.server.sent.append((file.name, len(content)))
        return self.send(content, extra=extra)

    def send(self, content, *, status=200, extra=None):
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | (extra or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def digest(text):
    return hashlib.sha1(text.encode()).hexdigest()


@pytest.fixture
def hub(tiny_folder, tmp_path):
    """The stand-in with the tiny model and a file of Python beside it."""
    folder = tmp_path / "served"
    folder.mkdir()
    for file in tiny_folder.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "modeling_sa2va_chat.py").write_text("raise SystemExit('it ran')")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked, server.sent = folder, [], []
    Thread(target=server.serve_forever, daemon=True).start()
    online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_DISABLE_XET": "1"}
    proxies = {key: "" for key in os.environ if key.lower().endswith("_proxy")} | {"NO_PROXY": "127.0.0.1"}

    def run(code, **more):
        given = os.environ | proxies | online | {"HF_HOME": str(tmp_path / "home")} | more
        return subprocess.run(
            [sys.executable, "-c", code], env=given, capture_output=True, text=True, timeout=120, cwd=tmp_path
        )

    yield SimpleNamespace(run=run, server=server, home=tmp_path / "home")
    server.shutdown()
    server.server_close()


def test_headers_alone_are_fetched(hub, tiny_folder):
    code = f"import sa2va_lab, json; print(json.dumps(sa2va_lab.inspect({NAME!r}).to_dict()))"
    done = hub.run(code)
    assert not done.returncode, done.stderr
    found, wanted = json.loads(done.stdout), read_inventory(tiny_folder).to_dict()
    assert found["path"] == NAME
    assert found["complete"]
    assert {part["origin"][0] for part in found["parts"]} == {"Sa2VA-Tiny"}
    for key in ("parameters", "bytes", "family", "language_model", "duplicates", "sha256"):
        assert found[key] == wanted[key]
    weights = sum(size for name, size in hub.server.sent if name.endswith(".safetensors"))
    assert weights <= 100_001 < wanted["bytes"]  # what the library asks for at first


def test_load_downloads_once_and_never_python(hub, tiny_folder):
    code = (
        "import sa2va_lab; from sa2va_lab.loading.hub import fetch_model; "
        f"s = sa2va_lab.load({NAME!r}, precision='fp32'); print(s.provenance['model'], s.provenance['parameters'])"
    )
    done = hub.run(code)
    assert not done.returncode, done.stderr
    assert done.stdout.split()[0] == "Sa2VA-Tiny"
    total = sum(f.stat().st_size for f in tiny_folder.iterdir())
    assert f"{total:,} bytes" in done.stderr
    assert "GB free" in done.stderr
    assert not [path for _, path in hub.server.asked if path.endswith(".py")]
    assert not list(hub.home.rglob("*.py"))
    sent = len(hub.server.sent)
    offline = hub.run(code, HF_HUB_OFFLINE="1")
    assert offline.stdout == done.stdout, offline.stderr
    assert len(hub.server.sent) == sent


def test_an_unknown_name_is_a_sentence(hub):
    code = "import sa2va_lab.cli, sys; sys.argv = ['sa2va-lab', 'inspect', 'some-lab/Other']; sa2va_lab.cli.main()"
    done = hub.run(code)
    assert done.returncode
    assert "the hub has no public model of that name" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("read", [read_inventory, fetch_model])
def test_offline_is_one_sentence(read):
    with pytest.raises(LabError, match="There is nothing at Some/Model.*the hub cannot be reached.*hf download"):
        read("Some/Model")


def test_a_mistyped_path_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    assert is_hub_id("ByteDance/Sa2VA-InternVL3-8B")
    for text in ("outputs/merged", "a/b/c", "../x", "/models/x", "x", "runs/iter_1.pth", "sam/sam2.pt", "~/x"):
        assert not is_hub_id(text), text
