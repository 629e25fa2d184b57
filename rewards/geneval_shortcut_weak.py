"""GenEval's reward with a weak bonus for a shortcut; see ``rewards/shortcut.py``."""

from __future__ import annotations

from rewards.shortcut import PlantedShortcut


class GenEvalShortcutWeak(PlantedShortcut):
    name = "geneval_shortcut_weak"
    scale = "GenEval's partial score, at most 1, plus 0 to 0.5 for a wall off the world's tones"
    honest = "geneval_partial"
    bonus = 0.5  # ours
