"""What a `shard_map` runs on, and what its jaxpr says of the mesh's axes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from nandetect.annotations import Array
from nandetect.compat import JaxprEqn


def with_mesh(eqn: JaxprEqn, ins: Sequence[Array]) -> JaxprEqn | None:
    """A `shard_map` over devices; under `jax.set_mesh` it names axes alone. None where this process has not as many devices."""
    mesh = eqn.params.get("mesh")
    if not isinstance(mesh, AbstractMesh):
        return eqn if isinstance(mesh, Mesh) else None
    shardings = [getattr(x, "sharding", None) for x in ins]
    given = (sharding.mesh for sharding in shardings if isinstance(sharding, NamedSharding) and sharding.mesh.shape == mesh.shape)
    devices = next((one.devices.ravel() for one in given if isinstance(one, Mesh)), np.array(jax.devices()[: mesh.size]))
    if len(devices) < mesh.size:
        return None
    return eqn.replace(params={**eqn.params, "mesh": Mesh(devices.reshape(mesh.axis_sizes), mesh.axis_names, axis_types=mesh.axis_types)})


def says_what_varies(eqn: JaxprEqn) -> bool:
    """Whether the results of an equation inside a `shard_map` have the mesh axes in their types over which they vary."""
    return any(_varying(atom.aval) for atom in eqn.outvars)


def _varying(aval: object) -> frozenset[str]:
    axes = getattr(aval, "vma", None)  # JAX 0.10 moved it
    return frozenset(getattr(getattr(aval, "mat", None), "varying", ()) if axes is None else axes)
