"""Figures. They read Runs, Datasets and tables; they never hold a model."""
