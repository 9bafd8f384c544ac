"""What a communication kernel's name tells: operation, data type, algorithm, protocol.

NCCL's names by version: `ncclAllReduceRingLLKernel_sum_f16` (to 2.11),
`ncclKernel_AllReduce_RING_LL_Sum_float` (2.12 to 2.18),
`ncclDevKernel_AllReduce_Sum_bf16_RING_LL` (from 2.19), `ncclSymkDevKernel_...` (from 2.27).
`ncclDevKernel_Generic` runs any operation, and one SendRecv kernel serves both directions and
all_to_all: their operation is not known from the name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from harness_collectors.names.classify import name_forms

_OPS: Final = (
    (re.compile(r"reduce_?scatter", re.I), "reduce_scatter"),
    (re.compile(r"all_?reduce|cross_device_reduce", re.I), "all_reduce"),
    (re.compile(r"all_?gather", re.I), "all_gather"),
    (re.compile(r"all_?to_?all|a2a", re.I), "all_to_all"),
    (re.compile(r"broadcast", re.I), "broadcast"),
    (re.compile(r"(?<!all)(?<!all_)reduce(?=_|Ring|Tree|$)", re.I), "reduce"),
    (re.compile(r"barrier", re.I), "barrier"),
)
_ALGO: Final = re.compile(
    r"(?:_|(?<=[a-z]))(RING|TREE|COLLNET_DIRECT|COLLNET_CHAIN|NVLS_TREE|NVLS|PAT|Ring|Tree)(?=_|LL|Simple)"
)
_PROTO: Final = re.compile(r"(?:_|(?<=Ring)|(?<=Tree))(LL128|LL|SIMPLE|Simple)(?=_|Kernel|$)")
_DTYPE: Final = re.compile(
    r"_(bf16|f16|f32|f64|f8e4m3|f8e5m2|[iu](?:8|32|64)|half|float|double|u?int(?:8|32|64)_t"
    r"|__nv_bfloat16)(?=_|$)"
)
_DTYPES: Final = {
    "bf16": "bfloat16",
    "__nv_bfloat16": "bfloat16",
    "f16": "float16",
    "half": "float16",
    "f32": "float32",
    "float": "float32",
    "f64": "float64",
    "double": "float64",
    "f8e4m3": "float8_e4m3fn",
    "f8e5m2": "float8_e5m2",
}


@dataclass(frozen=True)
class CommKernel:
    """What could be read off a name; None: it does not say."""

    op: str | None = None
    dtype: str | None = None
    algo: str | None = None
    proto: str | None = None


def describe_kernel(name: str) -> CommKernel:
    """Operation and choices of a communication kernel, as far as its name says them."""
    function = name_forms(name)["function"]
    op = next((op for pattern, op in _OPS if pattern.search(function)), None)
    if "nccl" not in function.lower():
        return CommKernel(op)
    dtype, algo, proto = (p.search(function) for p in (_DTYPE, _ALGO, _PROTO))
    return CommKernel(
        op,
        _dtype(dtype[1]) if dtype else None,
        algo[1].upper() if algo else None,
        proto[1].upper() if proto else None,
    )


def _dtype(text: str) -> str:
    known = _DTYPES.get(text)
    if known is not None:
        return known
    signed = "uint" if text.startswith("u") else "int"
    return signed + "".join(ch for ch in text.removesuffix("_t") if ch.isdigit())
