"""The real network: what it said is made again bit for bit, in its batch, and the smallest forgery on top is seen."""

import hashlib
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from sa2va_lab import load, open_dataset, open_run, paths, verify
from sa2va_lab.runs import predict_dataset


@pytest.mark.slow
def test_the_demo_s_run_is_verified_and_a_moved_logit_is_not(tmp_path):
    images = open_dataset(paths.demo_data())
    how = {"split": "test", "limit": 2, "batch": 2, "progress": False}
    run = predict_dataset(load(paths.demo_model()), images, folder=tmp_path / "run", **how)
    again = partial(load, paths.demo_model())
    honest = verify(run, images, again, images=1)
    assert (honest.kind, honest.values["largest"]) == ("made_again", 0)
    lines = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()]
    forged = next(line for line in lines if line["n_seg"])
    made = run.prediction(forged["id"])
    logits = made.logits.copy()
    logits[0, 20, 20] += np.float32(1e-3)
    content = replace(made, logits=logits).to_bytes()
    (run.folder / "logits" / f"{forged['id']}.npz").write_bytes(content)
    forged["logits_sha256"] = hashlib.sha256(content).hexdigest()
    (run.folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = verify(open_run(run.folder), images, again, images=2)
    assert (found.kind, found.values["names"]) == ("made_otherwise", forged["id"])
