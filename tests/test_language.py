"""Texts: English where it is used, Chinese in one catalogue; no text lacks one, and none is left over."""

import ast
import re
import string

import nbformat
import pytest

from sa2va_lab.errors import LabError
from sa2va_lab.language import current_language, join_sentences, read_catalogue, tr, use_language
from sa2va_lab.reports.index import IF_SEEN
from sa2va_lab.views.comparisons import BASELINES, EXTRAS
from sa2va_lab.views.findings import ALWAYS, SENTENCES
from sa2va_lab.views.gallery import MISTAKES, SUSPECTS
from sa2va_lab.views.inventories import PARTS
from sa2va_lab.views.scores import SEEN


def places(text):
    return sorted({name for _, name, _, _ in string.Formatter().parse(text) if name})


def bare(text):
    """A template without the names of its places."""
    return re.sub(r"\{[^{}]*\}", "{}", text).strip()


@pytest.fixture(scope="module")
def sources(root):
    """Every string of the code: [(the call that it is an argument of, text with {} for what is filled in)]."""
    found = []
    for path in (root / "sa2va_lab").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tr":
                found += [("tr", text) for text in strings(node.args[0])]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.startswith("tabulate"):
                heads = [key for part in node.args if isinstance(part, ast.Dict) for key in part.keys]
                found += [("tr", text) for head in heads for text in strings(head)]
            found += [("", bare(text)) for text in strings(node)]
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                found += [("tr", text) for text in named(function)]
    for path in (root / "sa2va_lab/reports/template").rglob("*.j2"):
        found += [("tr", text) for text in re.findall(r'\btr\("([^"]+)"', path.read_text("utf-8"))]
    for path in (root / "notebooks").glob("[0-9]*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        found += [("tr", cell.source.strip()) for cell in cells if cell.cell_type == "markdown"]
        typed = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ()))
        found += [("tr", line.partition("  # ")[2]) for line in typed.split("\n")]
    return found


def named(function):
    """Texts that a function gives a name to and hands to `tr` by it."""
    nodes = list(ast.walk(function))
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    names = {call.args[0].id for call in calls if call.func.id == "tr" and isinstance(call.args[0], ast.Name)}
    assigned = [node for node in nodes if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
    return [text for node in assigned if node.targets[0].id in names for text in strings(node.value)]


def strings(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        return ["".join(str(part) for part in parts)]
    return []


def test_every_text_is_in_the_catalogue(sources):
    wanted = {text for call, text in sources if call == "tr" and re.search(r"[a-z]{2}", text)}
    wanted |= {sentence for pair in SENTENCES.values() for sentence in pair} | set(
        (ALWAYS | BASELINES | EXTRAS | IF_SEEN | PARTS | SEEN | SUSPECTS).values()
    )
    wanted |= {text for about in MISTAKES.values() for text in about}
    assert sorted(wanted - set(read_catalogue("zh"))) == []


def test_no_translation_is_left_over(sources):
    there = {bare(text) for _, text in sources}
    assert [text for text in read_catalogue("zh") if bare(text) not in there] == []


@pytest.mark.parametrize("text", read_catalogue("zh"))
def test_a_translation_has_the_places_of_its_text(text):
    said = read_catalogue("zh")[text]
    assert places(said) == places(text)
    assert said.strip()


def test_a_finished_sentence_is_translated_by_its_template():
    told = "Dice 0.500 (no interval: it takes two patients or more) on 3 images of 2 patients, threshold 0.5, "
    told += "split “test”."
    with use_language("zh"):
        assert tr(told) == "Dice 0.500（无区间：至少需要两名患者），2 名患者的 3 幅图像，阈值 0.5，数据划分“test”。"
        assert tr("a sentence that nobody has written") == "a sentence that nobody has written"
        assert join_sentences(["甲。", "乙。"]) == "甲。乙。"
    assert tr(told) == told
    assert join_sentences(["A.", "B."]) == "A. B."


def test_a_language_ends_with_its_block_and_an_unknown_one_is_refused():
    with use_language("zh"):
        assert current_language() == "zh"
    assert current_language() == "en"
    with pytest.raises(LabError, match="language 'de' was asked for; there are texts in en"):
        use_language("de")
    assert current_language() == "en"
