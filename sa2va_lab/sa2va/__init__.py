"""The network: Sa2VA put together from transformers' own classes, answering as the official code answers."""
