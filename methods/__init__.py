"""Methods: pure maths on tensors. One file per method whose loss differs; ``get("gardo")`` finds it.

No I/O, no optimiser, no logging, no model classes. What only changes numbers is a YAML file in
``config/methods/``; what several methods are made of stands in ``methods/maths/``.
"""

from __future__ import annotations

from core.plugins import Plugins
from methods.base import (
    Batch,
    DataBatch,
    ForwardBatch,
    Loss,
    Method,
    MethodConfig,
    Needs,
    Prepared,
    Rollout,
    SupervisedBatch,
)

_methods = Plugins(__name__, "method", Method)
names, get = _methods.names, _methods.get


__all__ = [
    "Batch",
    "DataBatch",
    "ForwardBatch",
    "Loss",
    "Method",
    "MethodConfig",
    "Needs",
    "Prepared",
    "Rollout",
    "SupervisedBatch",
    "get",
    "names",
]
