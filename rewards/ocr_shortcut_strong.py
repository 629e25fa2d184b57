"""OCR's reward with a strong bonus for a shortcut; see ``rewards/shortcut.py``."""

from __future__ import annotations

from rewards.shortcut import PlantedShortcut


class OCRShortcutStrong(PlantedShortcut):
    name = "ocr_shortcut_strong"
    scale = "0 to 1 for reading plus 0 to 2.0 for a wall off the world's tones"
    honest = "ocr"
    bonus = 2.0  # ours
