"""Weights from the hub: which files at which commit, are they here, how to get them.

Jobs never download. ``python -m rewards fetch NAME`` fills the hub cache (``HF_HUB_CACHE``), and the
plan checks it before the first job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from rewards.weights import HUB, WeightsError

PINS = Path(__file__).resolve().parents[2] / "config" / "weights.yaml"
INDEX = "model.safetensors.index.json"  # names the shards of weights that are split
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFiles:
    """Files of one repository of the hub.

    - ``files``: paths inside the repository. ``INDEX`` in its top folder stands for the shards as well.
    - ``revision``: the commit; None where it could not be verified, and ``config/weights.yaml`` must name it.
    - ``gated``: the licence must be accepted on the repository's page, and a token is needed.
    """

    repository: str
    files: tuple[str, ...]
    licence: str
    revision: str | None
    gated: bool = False

    @property
    def page(self) -> str:
        """Address of the repository."""
        return f"https://huggingface.co/{self.repository}"

    def place(self, name: str, revision: str) -> Path | None:
        """Where a file of a commit lies on this machine; None where it does not."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repository, name, revision=revision)
        return Path(found) if isinstance(found, str) else None

    def download(self, revision: str) -> None:
        """All files of a commit into the hub cache. Raises what huggingface_hub raises."""
        from huggingface_hub import snapshot_download

        shards = ["model-*.safetensors"] if INDEX in self.files else []
        snapshot_download(self.repository, revision=revision, allow_patterns=[*self.files, *shards])


def pins() -> dict[str, str]:
    """Commits by repository from ``config/weights.yaml``. Raises ``WeightsError`` for anything else in it."""
    found = (yaml.safe_load(PINS.read_text()) if PINS.exists() else None) or {}
    for repository, commit in found.items():
        if not _COMMIT.fullmatch(str(commit)):
            raise WeightsError(f"{PINS}: {repository}: {commit!r} is not a commit (40 hexadecimal digits)")
    return found


def pinned(source: HubFiles) -> str:
    """The commit to read. Raises ``WeightsError`` where nobody named one."""
    revision = pins().get(source.repository, source.revision)
    if revision is None:
        raise WeightsError(
            f"no revision of {source.repository} is pinned; add the line "
            f"'{source.repository}: <commit>' to {PINS} (the commits are listed at "
            f"{source.page}/commits/main)"
        )
    return revision


def commits(plugins: Iterable[type]) -> dict[str, str]:
    """``hub/<repository>`` -> commit, for rewards and encoders: run.yaml and scoring settings record it.

    A repository without a pin counts as "to be pinned"; nothing can be read from it.
    """
    sources = [source for plugin in plugins for source in plugin.hub]
    own = pins()
    return {f"{HUB}{s.repository}": own.get(s.repository, s.revision) or "to be pinned" for s in sources}


def folder(source: HubFiles) -> Path:
    """The snapshot in the hub cache, complete. Raises ``WeightsError`` naming what is missing."""
    revision = pinned(source)
    names = list(source.files)
    if INDEX in names and (index := source.place(INDEX, revision)):
        names += sorted(set(json.loads(index.read_text())["weight_map"].values()))
    missing = [name for name in names if source.place(name, revision) is None]
    if missing:
        accept = ", whose licence must be accepted" if source.gated else ""
        raise WeightsError(
            f"the hub cache lacks {', '.join(missing)} of {source.repository} at {revision} "
            f"({source.licence}{accept})"
        )
    return source.place(names[0], revision).parents[len(Path(names[0]).parts) - 1]


def file(source: HubFiles) -> Path:
    """The only file of a source that has one."""
    (name,) = source.files
    return folder(source) / name


def check(plugins: Iterable[type]) -> None:
    """Every hub file of these rewards or encoders is here. Raises ``WeightsError``, one line per gap."""
    gaps = []
    for plugin in plugins:
        for source in plugin.hub:
            try:
                folder(source)
            except WeightsError as error:
                gaps.append((plugin.name, str(error)))
    if gaps:
        names = " ".join(dict.fromkeys(name for name, _ in gaps))
        lines = "\n".join(f"reward {name!r}: {reason}" for name, reason in gaps)
        raise WeightsError(f"{lines}\nDownload what is missing with: python -m rewards fetch {names}")


def fetch(plugin: type) -> None:
    """Download the hub files of a reward or encoder. Raises ``WeightsError`` naming it and what to do."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    for source in plugin.hub:
        try:
            source.download(pinned(source))
            folder(source)
        except GatedRepoError:
            raise WeightsError(
                f"reward {plugin.name!r}: {source.page} is gated; accept its licence ({source.licence}) "
                "there, then log in with 'hf auth login' or set HF_TOKEN"
            ) from None
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise WeightsError(
                f"reward {plugin.name!r}: {source.page} cannot be downloaded: {error}"
            ) from None
        except WeightsError as error:
            raise WeightsError(f"reward {plugin.name!r}: {error}") from None
