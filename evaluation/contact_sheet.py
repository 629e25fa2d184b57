"""Images of a few prompts on one sheet, captions on the left."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.media import film_strip

CELL = 72  # pixels
CAPTIONS = 260, 520  # least and greatest width


def contact_sheet(images: np.ndarray, captions: list[str]) -> Image.Image:
    """uint8 (rows, columns, H, W, 3), or clips, -> a sheet with one caption per row; film strips of clips."""
    rows, columns = images.shape[:2]
    strip = film_strip(images[0, 0])
    width = CELL * strip.shape[1] // images.shape[-2]
    font = ImageFont.load_default(size=13)
    least, greatest = CAPTIONS
    longest = max(round(font.getlength(caption)) + 12 for caption in captions)
    text = min(max(longest, least), greatest)
    sheet = Image.new("RGB", (text + columns * width, rows * CELL), "white")
    draw = ImageDraw.Draw(sheet)
    for r in range(rows):
        draw.text((6, r * CELL + CELL // 2 - 8), captions[r], fill="black", font=font)
        for c in range(columns):
            picture = Image.fromarray(film_strip(images[r, c]))
            cell = picture.resize((width - 2, CELL - 2), Image.Resampling.NEAREST)
            sheet.paste(cell, (text + c * width + 1, r * CELL + 1))
    return sheet
