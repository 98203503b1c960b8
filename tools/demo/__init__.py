"""Synthetic patients, and a tiny network that is trained on them: what data/demo was made with."""
