"""nandetect: the numerical debugger for JAX. Names are imported on first use, so that `import nandetect` does not import JAX."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nandetect import optax_health
    from nandetect.audit import audit_init
    from nandetect.errors import NonFiniteError, NonFiniteWarning, UsageError
    from nandetect.fixing.locate import locate
    from nandetect.guarding.guard import guard
    from nandetect.health import Health, probe
    from nandetect.monitor.monitor import Monitor
    from nandetect.records import Event, Finding, Fix, Frame, Operand, Report, Source
    from nandetect.speed.audit import audit_speed

__version__ = "0.1.0"

_HOME = {
    "audit_init": "audit",
    "locate": "fixing.locate",
    "guard": "guarding.guard",
    "audit_speed": "speed.audit",
    "probe": "health",
    "Health": "health",
    "optax_health": "optax_health",
    "Monitor": "monitor.monitor",
    "NonFiniteError": "errors",
    "NonFiniteWarning": "errors",
    "UsageError": "errors",
    "NonFiniteResult": "integrations.pytest_watch",
    **dict.fromkeys(("Event", "Finding", "Fix", "Frame", "Operand", "Report", "Source"), "records"),
    **dict.fromkeys(("load_ipython_extension", "unload_ipython_extension"), "integrations.notebook"),
}
__all__ = [
    "Event",
    "Finding",
    "Fix",
    "Frame",
    "Health",
    "Monitor",
    "NonFiniteError",
    "NonFiniteWarning",
    "Operand",
    "Report",
    "Source",
    "UsageError",
    "audit_init",
    "audit_speed",
    "guard",
    "locate",
    "optax_health",
    "probe",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'nandetect' has no attribute {name!r}")
    module = importlib.import_module(f"nandetect.{_HOME[name]}")
    value = module if _HOME[name] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
