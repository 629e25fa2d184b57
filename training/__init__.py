"""The training loop: rollout, update, checkpoint. ``python -m training RUN_DIR``."""
