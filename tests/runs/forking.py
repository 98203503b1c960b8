"""A process that loads a checkpoint once and forks, for each line on stdin, a process that predicts a data set.

`forking.py MODEL`; a line is [data folder, Run folder, file for what was opened, whether to look at a truth, batch,
whether to track films]. It prints the pid of each fork and, when that has ended, its exit status (-9 for a kill).
Importing torch takes seconds and a fork milliseconds, so twenty real processes with a real network can be killed in a
test.
"""

import json
import os
import sys
from pathlib import Path


class Told:
    """A Segmenter that is told the answer: untrained weights write five hundred tokens without a [SEG]."""

    def __init__(self, segmenter):
        self.segmenter, self.provenance = segmenter, segmenter.provenance

    def predict(self, image, prompt):
        return self.segmenter.predict(image, prompt, answer="Sure, [SEG].")

    def predict_many(self, images, prompt, *, batch):
        return self.segmenter.predict_many(images, prompt, batch=batch, answer="Sure, [SEG].")

    def track(self, frames, prompt, **how):
        return self.segmenter.track(frames, prompt, answer="Sure, [SEG].", **how)

    def prepare(self, images):
        self.segmenter.prepare(images)


def predict(segmenter, data, folder, opened_file, peek, batch, track):
    opened = []  # every path that Python code opens from here on, the data set's opening included
    sys.addaudithook(lambda event, facts: opened.append(str(facts[0])) if event == "open" else None)
    dataset = open_dataset(data, truths=False)  # as `predict` opens it
    predict_dataset(Told(segmenter), dataset, folder=folder, batch=batch, track=track, progress=False)
    if peek:
        dataset.samples[0].truth()
    Path(opened_file).write_text(json.dumps(opened[:]))


if __name__ == "__main__":
    import torch

    from sa2va_lab.datasets import open_dataset
    from sa2va_lab.loading.load import load
    from sa2va_lab.runs import predict_dataset

    torch.set_num_threads(1)  # a pool of threads would not survive a fork
    segmenter = load(sys.argv[1], device="cpu", precision="fp32", progress=False)
    print("ready", flush=True)
    for line in sys.stdin:
        if child := os.fork():
            print(child, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        try:
            predict(segmenter, *json.loads(line))
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
