"""Models, formats, cards: what fits, by how much, or what would."""

import json

import pytest

from sa2va_lab import cli
from sa2va_lab.language import use_language
from sa2va_lab.loading import matrix
from sa2va_lab.loading.catalogue import read_catalogue
from sa2va_lab.loading.forecast import GIB
from sa2va_lab.loading.matrix import advise, weigh_releases
from sa2va_lab.loading.plan import plan
from sa2va_lab.views import plans


@pytest.fixture
def two(monkeypatch):
    """The smallest release and the largest, which take the least time to forecast together."""
    known = {name: read_catalogue()[name] for name in ("Sa2VA-1B", "Sa2VA-26B")}
    monkeypatch.setattr(matrix, "read_catalogue", lambda: known)


def row(precision, needed, *cards):
    """One of an invented model on cards of 24 GiB, 1, 2 and 4 of which may hold it."""
    fits = [{"size": 24 * GIB, "spare": 24 * GIB - needed, "least": least} for least in cards]
    return {"model": "M", "parameters": 2e9, "image": "x", "precision": precision, "needed": needed, "cards": fits}


@pytest.mark.parametrize(
    ("needs", "least", "gpus", "expected"),
    [
        ((20, 12, 8), (1, 1, 1), 1, ("bf16", 1, "fits")),
        ((20, 12, 8), (1, 1, 1), 4, ("bf16", 1, "one card is enough: give each card a replica")),
        ((30, 18, 12), (2, 1, 1), 4, ("bf16", 2, "spread over 2 cards")),
        ((30, 18, 12), (None, 1, 1), 1, ("int8", 1, "fits")),
        ((90, 50, 23), (None, None, 1), 1, ("nf4", 1, "fits")),
        ((90, 50, 30), (None, 3, 2), 3, ("int8", 3, "spread over 3 cards")),
        ((90, 50, 30), (None, None, None), 1, (None, None, "too small: one card would need 30.0 GiB in nf4")),
    ],
)
def test_what_to_do_with_a_model(needs, least, gpus, expected):
    rows = [row(kind, need * GIB, count) for kind, need, count in zip(matrix.PRECISIONS, needs, least, strict=True)]
    found = advise(rows, 24 * GIB, gpus=gpus)
    assert (found["precision"], found["cards"], found["said"]) == expected
    spare = (24 - needs[matrix.PRECISIONS.index(found["precision"] or "nf4")]) * GIB
    assert found["spare"] == (None if (found["cards"] or 1) > 1 else spare)


def test_rows_say_what_a_plan_says(two):
    rows = weigh_releases(cards=(8 * GIB, 24 * GIB), gpus=4, images={"800x800": (800, 800)})
    assert [(line["model"], line["precision"], line["tiles"]) for line in rows] == [
        (model, precision, 5) for model in ("Sa2VA-1B", "Sa2VA-26B") for precision in matrix.PRECISIONS
    ]
    for line in rows:
        for card in line["cards"]:
            assert card["spare"] == card["size"] - line["needed"]
            assert (card["least"] == 1) == (card["spare"] >= 0)
    assert [card["least"] for card in rows[3]["cards"]] == [None, 3]
    assert plan("Sa2VA-26B", gpu="24GiB", tiles=5).rungs[0].shares[0].needed == rows[3]["needed"]


def test_the_command_says_it_for_all(two, capsys, monkeypatch):
    asked = ["sa2va-lab", "plan", "--all", "--gpu", "24GiB", "--tiles", "1"]
    monkeypatch.setattr("sys.argv", [*asked, "--gpus", "4"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["Model", "Numbers", "bf16", "int8", "nf4", "4", "×", "24", "GiB"]
    assert said[2].endswith(": one card is enough: give each card a replica")
    assert said[3].endswith("bf16 × 3: spread over 3 cards")
    monkeypatch.setattr("sys.argv", [*asked, "--json"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    told = json.loads(capsys.readouterr().out)
    assert (told["gpus"], len(told["rows"]), told["rows"][0]["tiles"]) == (1, 6, 1)


@pytest.mark.parametrize("given", [[], ["Sa2VA-8B", "--all"]])
def test_either_a_model_or_all(given, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sa2va-lab", "plan", *given])
    with pytest.raises(SystemExit):
        cli.main()
    assert "a checkpoint folder or a release's name, or --all" in capsys.readouterr().err


def test_table_and_figure_show_every_model_and_format():
    rows = [row("bf16", 20 * GIB, 1), row("int8", 12 * GIB, 1), row("nf4", 8 * GIB, 1)]
    assert plans.releases_table(rows).rows == [["M", "2 B", "20.0", "12.0", "8.0", "bf16 +4.0: fits"]]
    wide = [line | {"cards": [*line["cards"], {"size": 8 * GIB, "spare": 0, "least": 3}]} for line in rows]
    assert plans.releases_table(wide, gpus=4).rows == [["M", "2 B", "bf16 +4.0", "bf16 × 3"]]
    small = [line | {"cards": [{"size": GIB, "spare": GIB - line["needed"], "least": None}]} for line in rows]
    said = plans.releases_table(small).rows[0][-1]
    assert said == "nf4 -7.0: too small: one card would need 8.0 GiB in nf4"
    larger = [line | {"image": "y", "needed": line["needed"] + GIB} for line in rows]
    _, alt = plans.releases_figure(rows + larger)
    assert "M bf16 20.0 – 21.0; M int8 12.0 – 13.0; M nf4 8.0 – 9.0" in alt
    with use_language("zh"):
        assert "放得下" in plans.releases_table(rows).rows[0][-1]
