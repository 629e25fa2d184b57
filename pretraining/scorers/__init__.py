"""The recipe of the learned scorers. ``python -m pretraining.scorers --out FOLDER``."""
