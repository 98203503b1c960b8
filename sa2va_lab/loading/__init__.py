"""From a checkpoint folder to a running Segmenter: what is in it, where it runs, at which precision, and why."""
