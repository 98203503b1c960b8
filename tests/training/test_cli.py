import json

import pytest

from sa2va_lab.cli import main


@pytest.fixture
def call(monkeypatch, capsys):
    """Arguments -> (exit status, stdout, stderr) of the command."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["sa2va-lab", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return call


def test_json(call, synthetic, write, write_config):
    one = write(synthetic.as_text(synthetic.make_lines()), "one.log")
    four = write(synthetic.as_text(synthetic.make_lines(3048), 3048), "four.log")
    config = write_config()
    code, out, _ = call("training", one, four, "--config", config, "--samples", 1219, "--ranks", 4, "--json")
    assert code == 0
    runs = json.loads(out)["runs"]
    assert [(run["iterations"], run["implied_ranks"]) for run in runs] == [(12192, 1), (3048, 4)]
    assert runs[0]["drop_percent"]["llm_loss"] == 96.85


def test_words(call, synthetic, write, write_config):
    log = write(synthetic.as_text(synthetic.make_lines()))
    code, out, _ = call("training", log, "--config", write_config(annotations=1219))
    assert code == 0
    assert "loss: 14.2463 → 1.7884 (-87.45 %)" in out
    assert "! ranks: 12,192 iterations = " in out
    assert "A training loss is no metric" in out


def test_mistakes_are_one_sentence(call, tmp_path, synthetic, write):
    log = write(synthetic.as_text(synthetic.make_lines(100), 100))
    for arguments in (["absent.log"], [log, "--config", log], [log, "--ranks", 0], [tmp_path]):
        code, out, err = call("training", *arguments)
        assert code == 2
        assert out == ""
        assert err.startswith("sa2va-lab: ")
        assert err.count("\n") == 1
