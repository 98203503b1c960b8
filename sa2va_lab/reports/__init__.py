"""Reports: notebooks that were run, with their answers on one page."""
