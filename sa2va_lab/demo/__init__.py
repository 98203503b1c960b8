"""The embedded default: synthetic patients, and a tiny network that is trained on them."""
