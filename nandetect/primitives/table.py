"""The table of primitives: what is known of each, and nowhere else.

Records are found by name, since primitive objects move between JAX releases. `record.Primitive` says what each word means; the names of
one entry get records alike. To teach nandetect a primitive, begin here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nandetect.primitives import edges, exact
from nandetect.primitives.edges import always, outside
from nandetect.primitives.record import Depends, Primitive, Use

BY_NAME: dict[str, Primitive] = {}


def _enter(names: str, *, aliases: str = "", **facts: Any) -> None:
    """Enter records that differ in nothing but their names."""
    for name in names.split():
        record = Primitive(name=name, aliases=tuple(aliases.split()), **facts)
        for known in (name, *record.aliases):
            if known in BY_NAME:
                raise ValueError(f"the primitive {known} is entered twice")
            BY_NAME[known] = record


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _last_two(params: Mapping[str, Any], ndim: int) -> tuple[int, ...]:
    """The axes of a matrix, behind those of its batch."""
    return ndim - 2, ndim - 1


def _reduced(params: Mapping[str, Any], ndim: int) -> tuple[int, ...]:
    return tuple(params["axes"])


def _transformed(params: Mapping[str, Any], ndim: int) -> tuple[int, ...]:
    return tuple(range(ndim - len(params["fft_lengths"]), ndim))


_FIRST = (0,)
_WRITTEN = "written there as a literal"
_MOVE: dict[str, Any] = {"use": Use.MOVED, "depends": Depends.MOVED, "hands_on": True}
_EACH = Depends.ELEMENTWISE

# Moves: `interpret.movement` runs them.
_enter("copy", aliases="copy_p", copies=True, reshapes=True, same=True, **_MOVE)
_enter("stop_gradient optimization_barrier mesh_cast reshard name", **_MOVE)
_enter("pvary pcast", varies=True, same=True, **_MOVE)
_enter("sharding_constraint", same=True, **_MOVE)
_enter("reshape", moved=_FIRST, reshapes=True, same=True, **_MOVE)
_enter("squeeze", same=True, **_MOVE)
_enter("broadcast_in_dim", moved=_FIRST, reshapes=True, same=True, whole=_WRITTEN, **_MOVE)
_enter("expand_dims transpose rev slice split tile stack unstack", **_MOVE)
_enter("concatenate pad", chooses=True, whole=_WRITTEN, **_MOVE)
_enter("select_n", selects=True, chooses=True, whole=_WRITTEN, **_MOVE)
_enter("dynamic_slice", moved=_FIRST, **_MOVE)
_enter("dynamic_update_slice", moved=(0, 1), chooses=True, **_MOVE)
_NUMBERED: dict[str, Any] = {"use": Use.MOVED, "depends": Depends.NUMBERED, "hands_on": True, "chooses": True}
_enter("gather", moved=_FIRST, whole="index out of bounds, filled with nan", **_NUMBERED)
_enter("scatter", moved=(0, 2), whole=_WRITTEN, **_NUMBERED)
_enter("device_put", use=Use.MOVED, hands_on=True, copies=True)
_enter("sort top_k", use=Use.MOVED, depends=Depends.PERMUTED, bounds=True)

# Arithmetic of two numbers.
_SUM: dict[str, Any] = {"use": Use.SHIFTED, "depends": _EACH, "adds": True, "fuses_wider": True, "takes": 2}
_enter("add", exact=exact.sum_of_two, numpy="add", edge=edges.addition, infix="+", **_SUM)
_enter("add_any", numpy="add", edge=edges.addition, infix="+", **_SUM)
_enter("sub", exact=exact.difference, numpy="subtract", edge=edges.difference, infix="-", **_SUM)
_enter("neg", exact=exact.negative, use=Use.SHIFTED, depends=_EACH, zero_at_zero=True, numpy="negative")
_VANISHES: dict[str, Any] = {"zero_at_zero": True, "underflows": True}
_enter(
    "mul",
    exact=exact.product_of_two,
    depends=_EACH,
    multiplies=True,
    fuses_wider=True,
    numpy="multiply",
    edge=edges.product,
    takes=2,
    infix="*",
    **_VANISHES,
)
_enter(
    "div",
    depends=_EACH,
    multiplies=True,
    fuses_wider=True,
    numpy="divide",
    numpy_on="floats",
    edge=edges.division,
    takes=2,
    infix="/",
    **_VANISHES,
)
_enter("pow", depends=_EACH, edge=edges.power, takes=2, positive_only=True, infix="**", **_VANISHES)
_enter("rem", depends=_EACH, edge=always("remainder of a division by zero"), takes=2, infix="%")
_enter("atan2", depends=_EACH, zero_at_zero=True)
_enter("max", use=Use.MOVED, depends=_EACH, bounds=True, numpy="maximum", chooses_zero=True)
_enter("min", use=Use.MOVED, depends=_EACH, bounds=True, numpy="minimum", chooses_zero=True)
_enter(
    "clamp",
    use=Use.MOVED,
    depends=_EACH,
    bounds=True,
    chooses_zero=True,
)

# Functions of one number.
_enter("integer_pow", exact=exact.power, depends=_EACH, fuses_wider=True, edge=edges.integer_power, **_VANISHES)
_enter("square", exact=exact.square, depends=_EACH, fuses_wider=True, **_VANISHES)
_enter("exp", depends=_EACH, fuses_wider=True, underflows=True)
_enter("exp2 logistic erfc", depends=_EACH, underflows=True)
_EXPONENTIALS = _names("exp exp2")
_enter("log", depends=_EACH, edge=edges.log, positive_only=True, undoes=_EXPONENTIALS)
_enter("log2", depends=_EACH, edge=edges.log, positive_only=True, undoes=_EXPONENTIALS)
_enter("log1p", depends=_EACH, edge=edges.log1p, positive_only=True, zero_at_zero=True)
_enter(
    "sqrt",
    depends=_EACH,
    edge=always("square root of a negative number"),
    positive_only=True,
    zero_at_zero=True,
    numpy="sqrt",
    numpy_on="floats",
)
_enter("rsqrt", depends=_EACH, edge=edges.rsqrt, positive_only=True)
_enter("acos", depends=_EACH, edge=outside("acos", 1), has_ends=True)
_enter("asin", depends=_EACH, edge=outside("asin", 1), has_ends=True, zero_at_zero=True)
_enter("atanh", depends=_EACH, edge=outside("atanh", 1), has_ends=True)
_enter("acosh", depends=_EACH, edge=always("acosh below 1"), has_ends=True)
_enter("erf_inv", depends=_EACH, edge=outside("erf_inv", 1), has_ends=True)
_enter("lgamma", depends=_EACH, edge=always("lgamma at a pole"), positive_only=True)
_enter("digamma", depends=_EACH, edge=always("digamma at a pole"), positive_only=True)
_enter("sin", depends=_EACH, edge=always("sine of inf"), zero_at_zero=True)
_enter("cos", depends=_EACH, edge=always("cosine of inf"))
_enter("tan tanh atan sinh asinh expm1 erf cbrt real imag round", depends=_EACH, zero_at_zero=True)
_enter("abs", exact=exact.magnitude, depends=_EACH, zero_at_zero=True, numpy="abs")
_enter("sign", depends=_EACH, zero_at_zero=True)
_enter("floor", depends=_EACH, zero_at_zero=True, numpy="floor")
_enter("ceil", depends=_EACH, zero_at_zero=True, numpy="ceil")
_enter("convert_element_type", exact=exact.same, use=Use.MOVED, depends=_EACH, casts=True, reshapes=True, same=True)
_enter("reduce_precision", use=Use.MOVED, depends=_EACH, casts=True)
_enter(
    "bessel_i0e bessel_i1e bitcast_convert_type complex conj copysign cosh igamma igamma_grad_a igammac nextafter one_minus_square "
    "polygamma polynomial random_gamma_grad regularized_incomplete_beta zeta clz mulhi population_count shift_left "
    "shift_right_arithmetic shift_right_logical",
    depends=_EACH,
)

# Comparisons and booleans.
_enter("eq", depends=_EACH, numpy="equal", infix="==")
_enter("ne", depends=_EACH, numpy="not_equal", infix="!=")
_enter("lt", depends=_EACH, numpy="less", infix="<")
_enter("le", depends=_EACH, numpy="less_equal", infix="<=")
_enter("gt", depends=_EACH, numpy="greater", infix=">")
_enter("ge", depends=_EACH, numpy="greater_equal", infix=">=")
_enter("is_finite", tests=True, depends=_EACH, numpy="isfinite")
_enter("and", depends=_EACH, numpy="logical_and", numpy_on="booleans", joins=False)
_enter("or", depends=_EACH, numpy="logical_or", numpy_on="booleans", joins=True)
_enter("not", depends=_EACH, numpy="logical_not", numpy_on="booleans", joins=True)
_enter("xor", depends=_EACH, numpy="logical_xor", numpy_on="booleans")

# Over axes.
_ALONG: dict[str, Any] = {"depends": Depends.ALONG, "axes": _reduced}
_enter("reduce_sum", exact=exact.total, sums=True, fuses_wider=True, whole="overflow in a sum", **_ALONG)
_enter("reduce_prod", exact=exact.product, whole="overflow in a product", **_ALONG, **_VANISHES)
_enter("reduce_max", use=Use.MOVED, bounds=True, numpy="max", chooses_zero=True, **_ALONG)
_enter("reduce_min", use=Use.MOVED, bounds=True, numpy="min", chooses_zero=True, **_ALONG)
_enter("reduce_and", axes=_reduced, numpy="all", joins=False)
_enter("reduce_or", axes=_reduced, numpy="any", joins=True)
_enter("argmax argmin", **_ALONG)
_enter("cumsum", exact=exact.total, depends=Depends.RUNNING, sums=True, whole="overflow in a running sum")
_enter("cumprod", exact=exact.product, depends=Depends.RUNNING, whole="overflow in a running product", **_VANISHES)
_enter("cummax cummin", use=Use.MOVED, depends=Depends.RUNNING, bounds=True)
_enter("cumlogsumexp", use=Use.SHIFTED, depends=Depends.RUNNING)
_enter("fft", depends=Depends.ALONG, axes=_transformed, keeps_axes=True)
_enter("reduce_window_sum", depends=Depends.WINDOWED, sums_windows=True)
# The maximum over an inf, as of a pool over cells that were not tried, only selects it.
_enter("reduce_window_max reduce_window_min", use=Use.MOVED, depends=Depends.WINDOWED, bounds=True)
_enter("select_and_scatter_add", sums_windows=True)

# Products of arrays, and sums into places.
_enter("dot_general", depends=Depends.CONTRACTED, multiplies=True, sums=True, fuses_wider=True, whole="overflow in a matrix product")
_enter("conv_general_dilated", depends=Depends.CONVOLVED, multiplies=True, sums_windows=True, whole="overflow in a convolution")
_enter("scatter-add", aliases="scatter_add", depends=Depends.ADDITIVE, sums=True)
_enter("scatter-sub", aliases="scatter_sub", depends=Depends.ADDITIVE)
_enter("scatter-mul", aliases="scatter_mul", depends=_EACH)
_enter("scatter-max", aliases="scatter_max", use=Use.MOVED, depends=_EACH)
_enter("scatter-min", aliases="scatter_min", use=Use.MOVED, depends=_EACH)

# Linear algebra.
_MATRIX: dict[str, Any] = {"depends": Depends.ALONG, "axes": _last_two}
_enter("cholesky", factors=True, whole="matrix is not positive definite", **_MATRIX)
_enter("lu", factors=True, whole="singular matrix", **_MATRIX)
_enter("eigh", factors=True, whole="eigenvalues did not converge", **_MATRIX)
_enter("svd", factors=True, whole="singular values did not converge", **_MATRIX)
_enter("eig qr geqrf schur", factors=True, **_MATRIX)
_enter("householder_product tridiagonal hessenberg", **_MATRIX)
_enter("triangular_solve", whole="singular matrix", **_MATRIX)

# What carries a program.
_enter("scan", loops=True, carries=_names("jaxpr length reverse"))
_enter("while", loops=True, spreads=True, carries=_names("cond_jaxpr body_jaxpr"))
_enter("shard_map", spreads=True, piecemeal=True, carries=_names("jaxpr mesh"))
_enter("cond", carries=_names("branches"), branches=True)
_enter("pmap xla_pmap run_state custom_root call_hi_primitive")
_enter("reduce reduce_window", reduces=True)
_enter("jit", aliases="pjit", calls=True)
_enter("remat2", aliases="remat checkpoint remat_opt", calls=True)
_enter("custom_vjp_call", aliases="custom_vjp_call_jaxpr", calls=True)
_enter("custom_jvp_call closed_call core_call", calls=True)
_enter("custom_linear_solve", solves=True, carries=_names("jaxprs const_lengths"))

# What belongs to the host, or to another compiler.
_enter("pure_callback io_callback", opaque=True, calls_back=True, carries=_names("callback"))
_enter("ffi_call pallas_call tpu_custom_call triton_kernel_call mosaic_gpu", opaque=True)
_enter("debug_callback debug_print", prints=True)

# Across the shards of a `shard_map`.
_OVER_SHARDS = "overflow in a sum over shards"
_enter("all_gather all_gather_invariant ppermute all_to_all pgather", use=Use.MOVED, hands_on=True, crosses=True)
_enter("pmax pmin", use=Use.MOVED, crosses=True)
_enter("psum_invariant", crosses=True, unchecked="psum", whole=_OVER_SHARDS)
_enter("psum", crosses=True, whole=_OVER_SHARDS)
_enter("reduce_scatter psum_scatter all_gather_reduced", crosses=True)

_enter("random_bits threefry2x32", draws=True)

# Stated defaults: what `record.Primitive` says of an unknown primitive is right, or wide enough, for these.
LEFT_TO_THE_DEFAULT = _names(
    """
    after_all all_gather_done all_gather_reduced_start all_gather_start all_to_all_done all_to_all_start approx_top_k axis_index bias_bwd
    bias_fwd bitcast broadcast_to call call_exported call_hi_primitive_linearized check cholesky_update composite create_token
    cudnn_fusion custom_jvp_call_jaxpr custom_lin custom_partitioning custom_transpose_call custom_vmap_call dce_sink delay dim_as_value
    dimension_size eigh_jacobi eq_to eval_jaxpr from_edtype full_to_shard geqp3 global_array_to_host_local_array
    host_local_array_to_global_array inspect_sharding iota iota_2x32_shape jaxpr_call layout_constraint le_to linear_call lt_to
    lu_pivots_to_permutation ormqr pbroadcast pbroadcast_done pbroadcast_dynamic pbroadcast_start philox2x32 philox4x32 platform_index
    ppermute_done ppermute_start precv preduced psend psum_done psum_invariant_start psum_start ragged_all_to_all ragged_dot_general
    random_gamma reciprocal reduce_scatter_done reduce_scatter_start reduce_xor reduced_vary_cast reduced_vary_cast_p relayout
    remove_memory_space repeat rng_bit_generator rng_uniform roll scaled_dot scaled_matmul scaled_matmul_wrapper select_and_gather_add
    select_and_scatter shape_assertion shard_to_full spsolve stage symmetric_product threefry4x32 tie to_edtype todense tridiagonal_solve
    unreachable unreduced_pmax unreduced_pmin unreduced_psum unreduced_psum_start unreduced_reduce_scatter unreduced_reduce_scatter_start
    vary_unreduced_cast vary_unreduced_cast_p with_memory_space_constraint xla_metadata_call xla_metadata_value zeros_like
    """
)
# Families of primitives left to the default: sparse arrays, random keys, attention kernels, and what stands inside kernels and refs only.
DEFAULT_PREFIXES = ("bcoo_", "bcsr_", "coo_", "csr_", "random_", "prng_", "dot_product_attention_")
INSIDE_KERNELS = _names(
    """
    accum_grad_in_ref addupdate assume_for_verification atomic_cas atomic_rmw box_get box_set core_map create_linear dma_start dma_wait
    empty empty2 empty_ref for free_ref freeze get get_barrier_semaphore get_global log_extend log_read masked_load masked_swap
    max_contiguous mpmd_map multiple_of mutable_array new_box new_log new_ref num_programs pin pretend_for_verification program_id
    run_scoped semaphore_read semaphore_signal semaphore_wait swap unpin
    """
)
