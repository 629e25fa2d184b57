"""The recipe of the learned scorers. ``python -m rewards.pretraining --out FOLDER``."""
