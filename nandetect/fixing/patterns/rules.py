"""Derivative rules that a user wrote, at an edge of their own."""

from __future__ import annotations

from collections.abc import Iterator

from nandetect.fixing.forms import Found
from nandetect.fixing.graph import Graph
from nandetect.fixing.look import Look
from nandetect.records import Event

CALLS = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


def own_rule(graph: Graph, origin: Event) -> Iterator[Found]:
    """A value of the backward pass that is no derivative of anything that JAX differentiated, in a step that calls functions with rules."""
    if origin.phase != "backward" or origin.derivative_of is not None or origin.role is not None:
        return
    call = next((node for node in graph.nodes if node.name in CALLS and node.source is not None), None)
    if call is not None:
        yield Look(graph, call, origin, []).advised("ND300", origin.reason)
