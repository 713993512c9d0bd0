"""The audit of a model before its first step: the scale of every kernel, what the program does with it, what one batch shows."""

from nandetect.audit.audit import audit, audit_init
from nandetect.audit.result import Audit, Layer

__all__ = ["Audit", "Layer", "audit", "audit_init"]
