"""Methods: pure maths on tensors. One file per method whose loss differs; ``get("gardo")`` finds it.

No I/O, no optimiser, no logging, no model classes. What only changes numbers is a YAML file in
``config/methods/``.
"""

from __future__ import annotations

from methods.base import Batch, DataBatch, ForwardBatch, Method, MethodConfig, Needs, Rollout, SupervisedBatch
from plugins import Plugins

# Shared maths and the conformance tool are no methods.
_helpers = {
    "base",
    "advantages",
    "conformance",
    "diversity",
    "gate",
    "official_code",
    "policy_loss",
    "regularisation",
    "reward_combination",
    "sde",
}
_methods = Plugins(__name__, "method", Method, _helpers)
names, get = _methods.names, _methods.get


__all__ = [
    "Batch",
    "DataBatch",
    "ForwardBatch",
    "Method",
    "MethodConfig",
    "Needs",
    "Rollout",
    "SupervisedBatch",
    "get",
    "names",
]
