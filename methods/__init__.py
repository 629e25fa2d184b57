"""Methods: pure maths on tensors. One file per method whose loss differs; ``get("gardo")`` finds it.

No I/O, no optimiser, no logging, no model classes. What only changes numbers is a YAML file in
``config/methods/``.
"""

from __future__ import annotations

import importlib
import pkgutil

from methods.base import Batch, DataBatch, ForwardBatch, Method, MethodConfig, Needs, Rollout, SupervisedBatch

# Shared maths and the conformance tool are no methods.
_NOT_PLUGINS = {
    "base",
    "advantages",
    "conformance",
    "diversity",
    "gate",
    "policy_loss",
    "regularisation",
    "reward_combination",
    "sde",
}


def names() -> list[str]:
    """Every registered method: the modules of this package that are no shared maths."""
    found = (m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)
    return sorted(n for n in found if not n.startswith("_") and n not in _NOT_PLUGINS)


def get(name: str) -> type[Method]:
    """The method's class. Raises ``ValueError`` with the valid names for an unknown one."""
    if name not in names():
        raise ValueError(f"unknown method {name!r}; valid: {', '.join(names())}")
    module = importlib.import_module(f"methods.{name}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Method) and getattr(value, "name", None) == name:
            return value
    raise ValueError(f"methods/{name}.py holds no Method subclass with name = {name!r}")


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
