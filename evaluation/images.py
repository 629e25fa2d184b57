"""A run's evaluation images as files: one per suite and step, each image compressed without loss.

A file is a Parquet table with the columns step, suite, prompt (its index in the suite), image (its index
among those of the prompt) and png; the frames of a clip stand one below the other in its png. It says what
its images were made from (``made_from``), so that equal ones are neither sampled nor scored twice. Nothing
but figures reads them once a run is scored.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from core.files import replacing

SCHEMA = pa.schema(
    [("step", pa.int64()), ("suite", pa.string()), ("prompt", pa.int64()), ("image", pa.int64())]
    + [("png", pa.binary())]
)
GROUP, GROUP_BYTES = 64, 2**28  # images that are written and read at a time, and the most that they may take
MADE_FROM, PIXELS, FRAMES = b"made_from", b"pixels", b"frames"


class ImageFileError(ValueError):
    """A file of evaluation images is missing or damaged; the message names it and the way out."""


def path_of(folder: Path, suite: str, step: int) -> Path:
    return Path(folder) / f"{suite}_{step:06d}.parquet"


def sheet_of(folder: Path, suite: str, step: int) -> Path:
    """The contact sheet of some prompts of a file."""
    return path_of(folder, suite, step).with_suffix(".png")


def sheets(folder: Path) -> Iterator[tuple[Path, str, int]]:
    """Every contact sheet of a run with its suite and step."""
    for path in sorted(Path(folder).glob(f"*_{'[0-9]' * 6}.png")):
        suite, _, step = path.stem.rpartition("_")
        yield path, suite, int(step)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.reshape(-1, *pixels.shape[-2:])).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _writer(path: Path) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, SCHEMA, compression="none", write_page_checksum=True)


def write(path: Path, pixels: Iterable[np.ndarray], *, k: int, suite: str, step: int, made_from: str) -> None:
    """``pixels``: images uint8 (H, W, 3) or clips (F, H, W, 3), ``k`` of each prompt, few held at once."""
    first, pixels, digest = *_looked_at(pixels), hashlib.sha256()
    size = max(1, min(GROUP, GROUP_BYTES // first.nbytes))
    with replacing(path) as temporary, _writer(temporary) as writer:
        for start in itertools.count(0, size):
            group = list(itertools.islice(pixels, size))
            if not group:
                break
            for image in group:
                digest.update(np.ascontiguousarray(image))
            rows = np.arange(start, start + len(group))
            columns = [np.full(len(rows), step), [suite] * len(rows), rows // k, rows % k, map(_png, group)]
            arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
        writer.add_key_value_metadata({MADE_FROM: made_from, PIXELS: digest.hexdigest()})
        if first.ndim == 4:
            writer.add_key_value_metadata({FRAMES: str(len(first))})


def _looked_at(pixels: Iterable[np.ndarray]) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """The first one, and all of them."""
    pixels = iter(pixels)
    first = next(pixels)
    return first, itertools.chain([first], pixels)


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise ImageFileError(f"{path} is missing: sample the run's images again") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ImageFileError:
    return ImageFileError(f"{path} is damaged ({error}): delete it and sample the run's images again")


def made_from(path: Path) -> str | None:
    """What the images of a file were made from; None where there is no whole file."""
    try:
        return _opened(path).metadata.metadata[MADE_FROM].decode()
    except (ImageFileError, KeyError, TypeError):
        return None


def digest(path: Path) -> str:
    """Equal for equal images."""
    return _opened(path).metadata.metadata[PIXELS].decode()


def stream(path: Path, wanted: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Images uint8 (H, W, 3) or clips (F, H, W, 3) of a file one by one, without holding them all.

    ``wanted``: ascending rows.
    """
    with _opened(path) as file:
        size = file.metadata.row_group(0).num_rows
        frames = [int(n) for name, n in file.metadata.metadata.items() if name == FRAMES]
        keep = np.arange(file.metadata.num_rows) if wanted is None else wanted
        try:
            for group in np.unique(keep // size).tolist():
                pngs = file.read_row_group(group, columns=["png"], use_threads=False).column(0)
                for row in keep[keep // size == group].tolist():
                    with Image.open(io.BytesIO(pngs[row % size].as_py())) as image:
                        pixels = np.asarray(image)
                    yield pixels.reshape(*frames, -1, *pixels.shape[1:])
        except (pa.ArrowInvalid, OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
            raise _damaged(path, error) from None


def load(path: Path, prompts: np.ndarray, k: int) -> np.ndarray:
    """The images of some prompts (P,), given ascending, uint8 (P, k, ..., H, W, 3)."""
    rows = (np.asarray(prompts)[:, None] * k + np.arange(k)).flatten()
    pixels = np.stack(list(stream(path, rows)))
    return pixels.reshape(len(prompts), k, *pixels.shape[1:])


def count(path: Path) -> int:
    """Images of a file."""
    return _opened(path).metadata.num_rows


def per_prompt(path: Path) -> int:
    """Images of each prompt of a file."""
    return 1 + _opened(path).read(columns=["image"]).column("image").to_numpy().max()
