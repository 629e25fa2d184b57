"""Processes: where experience comes from and how batches are built of it; one file each, ``get("reverse")``.

Nothing else makes a batch. ``reverse`` trains on the steps of a stochastic rollout, ``forward`` on noised
final latents, ``data`` on data alone.
"""

from __future__ import annotations

from core.plugins import Plugins
from processes.base import Process

_processes = Plugins(__name__, "process", Process)
names, get = _processes.names, _processes.get

__all__ = ["Process", "get", "names"]
