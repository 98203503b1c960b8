"""A digest is read from the cache only for the very file that it was made of."""

import hashlib
import json

import pytest

from sa2va_lab.loading import digests
from sa2va_lab.loading.digests import digest_file


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SMALL", 0)
    return tmp_path / "cache/sa2va_lab/digests.json"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"one")
    return path


def test_it_is_read_once_and_again_when_the_file_changes(cache, file, monkeypatch):
    wanted = hashlib.sha256(b"one").hexdigest()
    assert digest_file(file) == wanted
    assert list(json.loads(cache.read_text()).values()) == [wanted]
    with monkeypatch.context() as patched:
        patched.setattr(digests.hashlib, "file_digest", None)  # reading would fail
        assert digest_file(file) == wanted
    file.write_bytes(b"two")
    assert digest_file(file) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}'])
def test_a_damaged_cache_is_none(cache, file, content):
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    assert digest_file(file) == hashlib.sha256(b"one").hexdigest()


def test_a_cache_that_cannot_be_written_is_none(cache, file):
    cache.parent.parent.write_text("in the way")
    assert digest_file(file) == hashlib.sha256(b"one").hexdigest()
