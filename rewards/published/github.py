"""Small files of GitHub repositories that no repository of the hub holds: instructions, linear heads."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from core.files import replacing
from rewards.published.hub import HubFiles
from rewards.weights import WeightsError

SITE = "github.com/"
RAW = "https://raw.githubusercontent.com"
TIMEOUT = 60  # seconds without a byte


def snapshot(cache: Path, repository: str, revision: str) -> Path:
    """The folder of a commit inside the hub cache."""
    return cache / repository.replace("/", "--") / revision


@dataclass(frozen=True)
class GitHubFiles(HubFiles):
    """Files of one commit of a GitHub repository; they lie in the hub cache beside the hub's own.

    - ``repository``: "github.com/<owner>/<name>".
    - ``blobs``: the files' object ids in the commit's tree, in the order of ``files``.
    """

    blobs: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        return f"https://{self.repository}"

    def place(self, name: str, revision: str) -> Path | None:
        path = self._snapshot(revision) / name
        return path if path.is_file() else None

    def download(self, revision: str) -> None:
        """All files of a commit into the hub cache.

        Raises ``WeightsError`` for a file of another content than was recorded, ``OSError`` for no answer.
        """
        for name, blob in zip(self.files, self.blobs, strict=True):
            address = f"{RAW}/{self.repository.removeprefix(SITE)}/{revision}/{name}"
            try:
                with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
                    content = answer.read()
            except http.client.HTTPException as error:
                raise OSError(f"{address}: {type(error).__name__}") from None
            came = hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()
            if came != blob:
                raise WeightsError(
                    f"{address} is not the file that was recorded: its git object id is {came}, not {blob}"
                )
            with replacing(self._snapshot(revision) / name) as temporary:
                temporary.write_bytes(content)

    @staticmethod
    def _cache() -> Path:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)

    def _snapshot(self, revision: str) -> Path:
        return snapshot(self._cache(), self.repository, revision)
