"""What a scene may hold. Every other file of the world takes its names and numbers from here."""

from __future__ import annotations

from collections.abc import Iterable

IMAGE_SIZE = 32

SHAPES = ("circle", "square", "triangle")

# Hues lie 60 degrees apart, so that the nearest hue is unambiguous for a rule-based detector.
COLOURS = {
    "red": (0.86, 0.14, 0.14),
    "yellow": (0.86, 0.86, 0.14),
    "green": (0.14, 0.86, 0.14),
    "cyan": (0.14, 0.86, 0.86),
    "blue": (0.14, 0.14, 0.86),
    "pink": (0.86, 0.14, 0.86),
}

# Backgrounds are achromatic: a value in [0, 1] for all three channels.
BACKGROUNDS = {"white": 0.92, "grey": 0.58, "black": 0.14}

MOTIONS = {  # kinds of motion -> their directions
    "move": ("left", "right", "up", "down"),
    "bounce": ("up and down", "from side to side"),
    "still": (None,),
}
SPEEDS = ("slowly", "quickly")

RELATIONS = ("left of", "right of", "above", "below")

NUMERALS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
)

# Sixteen glyphs that stay apart when drawn 11 pixels tall (no O/0, I/1, B/8, S/5, Z/2 pairs).
CODE_LETTERS = "ACEHKLNPTX"
CODE_DIGITS = "234679"

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


def plural(shape: str) -> str:
    """``circle`` -> ``circles``; every shape of the world takes a plain s."""
    return shape + "s"


def check_vocabulary(metadata: list[dict]) -> None:
    """Raise ``ValueError`` for a prompt that asks for what no scene holds: prompt, key and what is valid."""
    for prompt in metadata:
        asked = [("background", prompt.get("background"), BACKGROUNDS)]
        for item in [*prompt.get("include", []), *prompt.get("exclude", [])]:
            asked += [("class", item["class"], SHAPES), ("color", item.get("color"), COLOURS)]
            asked.append(("position", (item.get("position") or [None])[0], RELATIONS))
            asked += _motion_asked(item["motion"]) if "motion" in item else []
        asked.append(("sign.color", (prompt.get("sign") or {}).get("color"), COLOURS))
        for key, value, valid in asked:
            if value is not None and value not in valid:
                raise ValueError(
                    f"prompt {prompt['prompt']!r}: {key} {value!r} is none of {', '.join(valid)}"
                )
        if len({"motion" in item for item in prompt.get("include", [])}) > 1:
            raise ValueError(f"prompt {prompt['prompt']!r}: some items have a motion and some have none")


def _motion_asked(motion: dict) -> list[tuple[str, object, Iterable[str]]]:
    """What an item's motion asks for: key, value, valid values."""
    kind, direction = motion.get("kind"), motion.get("direction")
    asked = [("motion.kind", str(kind), MOTIONS), ("motion.speed", motion.get("speed"), SPEEDS)]
    if kind in MOTIONS and direction not in MOTIONS[kind]:
        asked.append(("motion.direction", str(direction), [name or "no direction" for name in MOTIONS[kind]]))
    return asked
