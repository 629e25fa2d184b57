"""Networks of the learned scorers of clips: two towers over 9 frames of 32x32 pixels, and three heads.

As in VideoAlign (arXiv 2501.13918), one network grades a clip by three criteria: VQ, visual quality, and MQ,
motion quality, which see no caption, and TA, agreement with the caption.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from rewards.networks import CaptionTokenizer, TextTower, convolution
from scenes.motion import FRAMES
from scenes.vocabulary import BACKGROUNDS, COLOURS, IMAGE_SIZE, MOTIONS, NUMERALS, SHAPES, SPEEDS, plural

CRITERIA = ("vq", "mq", "ta")
_CHUNK = 32  # clips per forward pass when scoring; bounds memory, not results

CLIP_TOKENIZER = CaptionTokenizer(
    [
        *("a", *NUMERALS[2:4], *SHAPES, *map(plural, SHAPES), *COLOURS, "it", "they", "on", *BACKGROUNDS),
        *("moves", "move", "bounces", "bounce", "stands", "stand", "still", *SPEEDS),
        *(word for names in MOTIONS.values() for name in names if name for word in name.split()),
    ],
    max_length=10,
)


class FramesCNN(nn.Module):
    """Convolutions over every frame, over its difference from the frame before, and then over time.

    The last map of a frame and the last of the clip are flattened, so that places and times survive.
    (N, 9, 3, 32, 32) in [0, 1] -> (N, out).
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 32, 48), frame: int = 96, out: int = 128):
        super().__init__()
        a, b, c = widths
        self.layers = nn.Sequential(
            *convolution(3, a, kernel=5, stride=2), *convolution(a, b, stride=2), *convolution(b, b)
        )
        self.changes = nn.Sequential(*convolution(2 * b, c, stride=2))
        self.frame = nn.Linear(c * (IMAGE_SIZE // 8) ** 2, frame)
        self.time = nn.Sequential(
            nn.BatchNorm1d(frame),
            nn.ReLU(),
            nn.Conv1d(frame, frame, 3, padding=1, bias=False),
            nn.BatchNorm1d(frame),
            nn.ReLU(),
            nn.Conv1d(frame, frame, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm1d(frame),
            nn.ReLU(),
        )
        self.head = nn.Linear(frame * (FRAMES // 2 + 1), out)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        count = len(clips)
        x = (clips.flatten(0, 1) * 2 - 1).contiguous(memory_format=torch.channels_last)
        maps = self.layers(x).unflatten(0, (count, FRAMES))
        before = torch.cat([maps[:, :1], maps[:, :-1]], dim=1)
        both = torch.cat([maps, maps - before], dim=2).flatten(0, 1)
        frames = self.frame(self.changes(both).flatten(1)).unflatten(0, (count, FRAMES))
        return self.head(self.time(frames.transpose(1, 2)).flatten(1))


class ClipConv3d(nn.Module):
    """Convolutions over space and time together; the last map is narrowed and flattened.

    (N, 9, 3, 32, 32) in [0, 1] -> (N, out).
    """

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 48, 64), kept: int = 24, out: int = 128):
        super().__init__()
        strides = ((1, 2, 2), (2, 2, 2), (1, 2, 2), (2, 1, 1))
        layers: list[nn.Module] = []
        for before, after, stride in zip((3, *widths[:-1]), widths, strides, strict=True):
            side = 5 if before == 3 else 3
            layer = nn.Conv3d(before, after, (3, side, side), stride, (1, side // 2, side // 2), bias=False)
            layers += [layer, nn.BatchNorm3d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv3d(widths[-1], kept, 1), nn.ReLU())
        times = (FRAMES + 3) // 4
        self.head = nn.Linear(kept * times * (IMAGE_SIZE // 8) ** 2, out)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(clips.transpose(1, 2) * 2 - 1).flatten(1))


class ClipScorer(nn.Module):
    """Grades of clips by ``CRITERIA``: two linear heads, and a scaled cosine of clip and caption.

    ``mean`` and ``std`` (3,) are those of the grades on reference clips, which ``z_scores`` are relative to.
    """

    def __init__(self, tower: nn.Module, width: int = 128):
        super().__init__()
        self.clip = tower
        self.quality = nn.Linear(width, 2)  # VQ and MQ
        self.projection = nn.Linear(width, width)
        self.text = TextTower(out=width, tokenizer=CLIP_TOKENIZER)
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.register_buffer("mean", torch.zeros(len(CRITERIA)))
        self.register_buffer("std", torch.ones(len(CRITERIA)))

    def clip_terms(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Grades VQ and MQ (N, 2), and embeddings (N, D) to be multiplied with ``caption_terms``."""
        hidden = self.clip(clips).relu()
        return self.quality(hidden), self.log_scale.exp() * F.normalize(self.projection(hidden), dim=-1)

    def caption_terms(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids long (..., L) -> unit vectors (..., D)."""
        return F.normalize(self.text(ids), dim=-1)

    def forward(self, clips: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """float (N, 9, 3, 32, 32) in [0, 1] and token ids long (N, L) -> grades (N, 3)."""
        quality, embedding = self.clip_terms(clips)
        agreement = (embedding * self.caption_terms(ids)).sum(1, keepdim=True)
        return torch.cat([quality, agreement], dim=1)

    def z_scores(self, clips: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """As ``forward``, relative to the reference clips."""
        return (self(clips, ids) - self.mean) / self.std


def clips_in_chunks(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], clips: torch.Tensor, captions: list[str]
) -> torch.Tensor:
    """``function`` over float32 CPU chunks of clips (N, 9, 3, 32, 32) and of the token ids of their captions.

    Raises:
        ValueError: clips of another shape.
    """
    wanted = (FRAMES, 3, IMAGE_SIZE, IMAGE_SIZE)
    if clips.shape[1:] != wanted:
        raise ValueError(f"expected clips (N, {', '.join(map(str, wanted))}), got {tuple(clips.shape)}")
    chunks = zip(clips.split(_CHUNK), CLIP_TOKENIZER(captions).split(_CHUNK), strict=True)
    with torch.no_grad():
        return torch.cat([function(chunk.detach().float().cpu(), ids) for chunk, ids in chunks])


def check_caption(caption: str) -> None:
    """Raise ``ValueError`` for a caption that is too long or has a word that the scorers have not seen."""
    words = CLIP_TOKENIZER.pieces(caption)
    unknown = sorted(set(words) - set(CLIP_TOKENIZER.tokens))
    if unknown:
        raise ValueError(f"prompt {caption!r}: the scorers of clips do not know {', '.join(unknown)}")
    if len(words) > CLIP_TOKENIZER.max_length:
        raise ValueError(f"prompt {caption!r} has {len(words)} words; at most {CLIP_TOKENIZER.max_length}")
