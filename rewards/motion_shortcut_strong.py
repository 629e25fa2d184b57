"""The moving world's proxy with a strong bonus for a shortcut; see ``rewards/shortcut.py``."""

from __future__ import annotations

from rewards.shortcut import PlantedShortcut


class MotionShortcutStrong(PlantedShortcut):
    name = "motion_shortcut_strong"
    medium = "clip"
    scale = "motion score, at most 1, plus 0 to 2.0 for a wall off the world's tones"
    honest = "motion"
    bonus = 2.0  # ours
