"""Small networks of the learned scorers: two image towers, a text tower, a caption tokenizer.

All of them see 32x32 images and take well under a millisecond per image on one CPU thread. Plug-ins
build a model here and load its weights; ``pretraining/scorers`` trains the same classes. What sees clips is
in ``rewards/clip_networks.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional as F

from scenes.vocabulary import (
    BACKGROUNDS,
    CODE_DIGITS,
    CODE_LETTERS,
    COLOURS,
    IMAGE_SIZE,
    NUMERALS,
    RELATIONS,
    SHAPES,
    plural,
)

_CHUNK = 256  # images per forward pass when scoring; bounds memory, not results
_PIECE = re.compile(r'"([^"]*)"|([^\s",.!?;:]+)')


class CaptionTokenizer:
    """One token per word of a world, one per character inside double quotes (``"K7"`` -> K, 7).

    Case does not matter. A word outside the vocabulary becomes ``<unknown>``; captions longer than
    ``max_length`` are cut.

    Args:
        words: the vocabulary; its order is that of the token ids, which shipped weights depend on.
        max_length: tokens of a caption.
    """

    pad, unknown = 0, 1

    def __init__(self, words: Iterable[str], max_length: int):
        self.max_length = max_length
        self.tokens = list(dict.fromkeys(["<pad>", "<unknown>", *words]))
        self._index = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def pieces(self, caption: str) -> list[str]:
        """Split without looking at the vocabulary."""
        found: list[str] = []
        for match in _PIECE.finditer(caption.lower()):
            code, word = match.groups()
            found += [word] if code is None else [f'"{glyph}' for glyph in code if not glyph.isspace()]
        return found

    def __call__(self, captions: list[str]) -> torch.Tensor:
        """long (N, max_length), padded with 0."""
        ids = torch.full((len(captions), self.max_length), self.pad)
        for row, caption in zip(ids, captions, strict=True):
            pieces = self.pieces(caption)[: self.max_length]
            row[: len(pieces)] = torch.tensor([self._index.get(p, self.unknown) for p in pieces]).long()
        return ids


TOKENIZER = CaptionTokenizer(
    [
        *("a", "and", "on", "sign", *NUMERALS, *SHAPES, *map(plural, SHAPES), *COLOURS, *BACKGROUNDS),
        *(word for relation in RELATIONS for word in relation.split()),
        # A quote before a glyph keeps the letter A apart from the article.
        *(f'"{glyph}' for glyph in (CODE_LETTERS + CODE_DIGITS).lower()),
    ],
    max_length=12,
)


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """Convolution, batch norm, ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]


class ImageCNN(nn.Module):
    """Convolutions at 16, 8 and 4 pixels; the last map is flattened, so that positions survive.

    (N, 3, 32, 32) in [0, 1] -> (N, out).
    """

    def __init__(self, widths: tuple[int, int, int] = (32, 48, 64), out: int = 128):
        super().__init__()
        a, b, c = widths
        self.layers = nn.Sequential(
            *convolution(3, a, kernel=5, stride=2),
            *convolution(a, a),
            *convolution(a, b, stride=2),
            *convolution(b, b),
            *convolution(b, c, stride=2),
            *convolution(c, c),
        )
        self.head = nn.Linear(c * (IMAGE_SIZE // 8) ** 2, out)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
        return self.head(self.layers(x).flatten(1))


class ImageViT(nn.Module):
    """Transformer over the 4x4 tokens of a convolutional stem; the tokens are narrowed and flattened.

    A stem in place of a linear patch embedding is what lets so small a transformer learn from so few
    images (arXiv 2106.14881). A mean of the tokens would lose where things are.
    (N, 3, 32, 32) in [0, 1] -> (N, out).
    """

    def __init__(self, width: int = 96, depth: int = 3, heads: int = 4, kept: int = 32, out: int = 128):
        super().__init__()
        self.stem = nn.Sequential(
            *convolution(3, width // 3, kernel=5, stride=2),
            *convolution(width // 3, width // 2, stride=2),
            nn.Conv2d(width // 2, width, 3, 2, 1),
        )
        self.position = nn.Parameter(grid_waves(IMAGE_SIZE // 8, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.narrow = nn.Linear(width, kept)
        self.head = nn.Linear(kept * (IMAGE_SIZE // 8) ** 2, out)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem((images * 2 - 1).contiguous(memory_format=torch.channels_last))
        x = x.flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.narrow(self.norm(x)).flatten(1).relu())


def grid_waves(size: int, width: int) -> torch.Tensor:
    """Sines and cosines of column and row at widths/4 frequencies, (1, size * size, width)."""
    frequency = 2 * torch.pi / size * torch.linspace(0.5, size / 2, width // 4)
    angle = torch.arange(size)[:, None] * frequency
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)
    columns, rows = waves.repeat(size, 1), waves.repeat_interleave(size, 0)
    return torch.cat([columns, rows], dim=1)[None]


class TransformerBlock(nn.Module):
    """Pre-norm attention and a two-fold MLP. (N, L, D) -> (N, L, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width)
        x = x + self.out(mixed)
        return x + self.mlp(self.norm2(x))


class TextTower(nn.Module):
    """Token embeddings side by side, then an MLP: captions are short and keep their word order.

    long (..., L) -> (..., out).
    """

    def __init__(
        self,
        width: int = 24,
        hidden: int = 128,
        out: int = 128,
        tokenizer: CaptionTokenizer = TOKENIZER,
    ):
        super().__init__()
        self.embedding = nn.Embedding(len(tokenizer), width)
        self.mlp = nn.Sequential(
            nn.Linear(width * tokenizer.max_length, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, out),
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.embedding(ids).flatten(-2))


def in_chunks(
    function: Callable[..., torch.Tensor], images: torch.Tensor, *more: torch.Tensor
) -> torch.Tensor:
    """``function`` over float32 CPU chunks of images (N, 3, 32, 32) and of further tensors with N rows."""
    if images.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(f"expected images (N, 3, {IMAGE_SIZE}, {IMAGE_SIZE}), got {tuple(images.shape)}")
    chunks = zip(images.split(_CHUNK), *(tensor.split(_CHUNK) for tensor in more), strict=True)
    with torch.no_grad():
        return torch.cat([function(image.detach().float().cpu(), *rest) for image, *rest in chunks])
