"""GenEval's reward with a strong bonus for a shortcut; see ``rewards/shortcut.py``."""

from __future__ import annotations

from rewards.shortcut import PlantedShortcut


class GenEvalShortcutStrong(PlantedShortcut):
    name = "geneval_shortcut_strong"
    scale = "GenEval's partial score, at most 1, plus 0 to 2.0 for a wall off the world's tones"
    honest = "geneval_partial"
    bonus = 2.0  # ours
