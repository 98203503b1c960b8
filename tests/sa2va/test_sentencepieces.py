"""tokenizer.model, read as data: sentencepiece's own tokens, and a sentence for what is no such file."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa2va_lab.errors import LabError
from sa2va_lab.sa2va.configuration import parse_config
from sa2va_lab.sa2va.processing import PromptReader
from sa2va_lab.sa2va.sentencepieces import build_tokenizer, list_merges

WORDS = st.sampled_from(
    [
        "the",
        "blood",
        "vessel",
        "Please",
        "segment",
        " ",
        "  ",
        "\n",
        "\t",
        "é",
        "血管",
        "🙂",
        "[x]",
        "12345",
        "don't",
        "▁",
    ]
)


@pytest.fixture(scope="module", params=["internlm2", "phi3"])
def pair(request, root):
    """(sentencepiece's tokenizer, ours) of the same file; one of the two puts a blank before each text."""
    theirs = pytest.importorskip("sentencepiece", reason="not compared: sentencepiece is not installed (extra test)")
    path = root / "tests/parity" / request.param / "tokenizer/tokenizer.model"
    return theirs.SentencePieceProcessor(str(path)), build_tokenizer(path, {})


@given(words=st.lists(WORDS, max_size=12))
def test_the_tokens_are_sentencepieces(pair, words):
    theirs, ours = pair
    text = "".join(words)
    assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text)
    assert ours.decode(theirs.encode(text)) == theirs.decode(theirs.encode(text))


def test_merges_come_by_score_then_by_place():
    pieces = [("<unk>", 0, 2), ("ab", -1, 1), ("abc", -3, 1), ("bc", -2, 1), ("a", -4, 1), ("b", -5, 1), ("c", -6, 1)]
    assert list_merges(pieces) == [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")]


@pytest.fixture
def folder(root, tmp_path):
    """InternLM2's tokenizer files, to be damaged."""
    return shutil.copytree(root / "tests/parity/internlm2/tokenizer", tmp_path / "tokenizer")


@pytest.fixture
def config(family_config):
    return parse_config(family_config("internlm2"))


def test_the_first_token_is_there_once_unless_the_folder_says_otherwise(folder, config):
    prompt = "<image>Please segment <image-like> things."
    with_it = PromptReader(folder, config).prompt_ids(prompt, 4)
    assert with_it.all.count(1) == 1
    assert with_it.head[0] == 1
    said = json.loads((folder / "tokenizer_config.json").read_text()) | {"add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    without = PromptReader(folder, config).prompt_ids(prompt, 4)
    assert (without.head, without.tail) == (with_it.head[1:], with_it.tail)


def test_saved_by_transformers_and_read_again(folder, config, tmp_path):
    reader = PromptReader(folder, config)
    reader.tokenizer.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "tokenizer.model").exists()
    again = PromptReader(tmp_path / "saved", config)
    text = "<image>\nPlease segment the blood vessel."
    assert again.prompt_ids(text, 3).all == reader.prompt_ids(text, 3).all
    assert again.answer_ids("Sure, [SEG].") == reader.answer_ids("Sure, [SEG].")


def test_python_beside_it_is_never_imported(folder, config, tmp_path):
    (folder / "tokenization_internlm2.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    PromptReader(folder, config)
    assert not (tmp_path / "ran").exists()


@given(cut=st.integers(0, 29_000), junk=st.binary(max_size=64))
def test_damaged_files_are_sentences(root, family_config, tmp_path_factory, cut, junk):
    source, broken = root / "tests/parity/internlm2/tokenizer", tmp_path_factory.mktemp("broken")
    for file in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(source / file, broken / file)
    whole = (source / "tokenizer.model").read_bytes()
    (broken / "tokenizer.model").write_bytes(whole[:cut] + junk)
    with pytest.raises(LabError, match="tokenizer"):
        PromptReader(broken, parse_config(family_config("internlm2")))


def test_a_folder_without_it(config, tmp_path):
    with pytest.raises(LabError, match=r"has no tokenizer.json or tokenizer.model: copy"):
        PromptReader(tmp_path, config)


def test_a_place_that_is_not_free(folder, config):
    said = json.loads((folder / "tokenizer_config.json").read_text())
    said["added_tokens_decoder"]["9000"] = {"content": "<far>", "special": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    with pytest.raises(LabError, match="<far>.* at 9000, which is not the next free place"):
        PromptReader(folder, config)
