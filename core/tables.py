"""Parquet tables whose pages carry checksums: a damaged file is said, never read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from core.files import replacing


class DamagedFile(ValueError):
    """A stored file is missing or not as it was written; the message names it and the way out."""


def write_table(table: pd.DataFrame, path: Path, **options) -> None:
    """Whole or absent; ``options`` of ``DataFrame.to_parquet``."""
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False, write_page_checksum=True, **options)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Raises ``DamagedFile``."""
    try:
        return pd.read_parquet(path, columns=columns, page_checksum_verification=True)
    except FileNotFoundError:
        raise DamagedFile(f"{path} does not exist") from None
    except (ValueError, OSError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: object) -> DamagedFile:
    """What to say of a file that somebody can make again."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DamagedFile(f"{path} is damaged ({reason}): delete it and start again, which makes it anew")
