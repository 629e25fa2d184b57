"""OCR's reward with a weak bonus for a shortcut; see ``rewards/shortcut.py``."""

from __future__ import annotations

from rewards.shortcut import PlantedShortcut


class OCRShortcutWeak(PlantedShortcut):
    name = "ocr_shortcut_weak"
    scale = "0 to 1 for reading plus 0 to 0.5 for a wall off the world's tones"
    honest = "ocr"
    bonus = 0.5  # ours
