"""What names of communication kernels tell, and what they do not."""

from __future__ import annotations

import pytest

from harness_collectors.names.comm_kernels import CommKernel, describe_kernel


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
            CommKernel("all_reduce", "bfloat16", "RING", "LL"),
        ),
        (
            "ncclDevKernel_AllReduce_Sum_f32_TREE_LL128(ncclDevKernelArgsStorage<4096ul>)",
            CommKernel("all_reduce", "float32", "TREE", "LL128"),
        ),
        (
            "ncclKernel_AllReduce_RING_LL_Sum_float(ncclDevComm*, unsigned long, ncclWork*)",
            CommKernel("all_reduce", "float32", "RING", "LL"),
        ),
        (
            "ncclKernel_ReduceScatter_RING_SIMPLE_Sum_int8_t(ncclDevComm*)",
            CommKernel("reduce_scatter", "int8", "RING", "SIMPLE"),
        ),
        (
            "ncclAllReduceRingLLKernel_sum_f16(ncclColl)",
            CommKernel("all_reduce", "float16", "RING", "LL"),
        ),
        (
            "ncclDevKernel_AllReduce_Sum_bf16_NVLS_TREE_SIMPLE(x)",
            CommKernel("all_reduce", "bfloat16", "NVLS_TREE", "SIMPLE"),
        ),
        ("ncclDevKernel_AllGather_RING_LL(x)", CommKernel("all_gather", None, "RING", "LL")),
        ("ncclDevKernel_Broadcast_RING_LL(x)", CommKernel("broadcast", None, "RING", "LL")),
        ("ncclDevKernel_Reduce_Sum_u64_RING_LL", CommKernel("reduce", "uint64", "RING", "LL")),
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", CommKernel()),
        ("ncclDevKernel_Generic_2(ncclDevKernelArgs)", CommKernel()),
        ("void vllm::cross_device_reduce_1stage<half, 2>(x)", CommKernel("all_reduce")),
        ("multimem_all_reduce_kernel<c10::BFloat16>", CommKernel("all_reduce")),
        ("void deep_ep::intranode::dispatch<8>(int4*)", CommKernel()),
    ],
)
def test_names(name, expected):
    assert describe_kernel(name) == expected
