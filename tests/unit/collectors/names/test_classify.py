"""The classification table: every family of kernel names met in the wild, and its algebra."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_collectors.names import classify
from harness_collectors.names.classify import (
    KINDS,
    KINETO_KINDS,
    Classifier,
    Rule,
    classifier,
    load_rules,
    name_forms,
)
from harness_schemas.errors import UsageError
from harness_schemas.vocabulary import CATEGORIES

COMM = [
    "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
    "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)",
    "ncclKernel_AllReduce_RING_LL_Sum_float(ncclDevComm*, unsigned long, ncclWork*)",
    "ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclDevComm*, unsigned long, ncclWork*)",
    "ncclAllReduceRingLLKernel_sum_f16(ncclColl)",
    "void ncclSymkDevKernel_AllReduce_AGxLL_R_sum_bf16(ncclSymkDevWorkArgs const*)",
    "_Z29ncclDevKernel_Generic_128P24ncclDevKernelArgsStorage",
    "ncclDevKernel_Generic_2(ncclDevKernelArgs)",
    "void mscclpp::collective::allreducePacket<__half>(void*, void*)",
    "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>(vllm::RankData*, vllm::RankSignals)",
    "void sglang::cross_device_reduce_2stage<half, 8>(sglang::RankData*)",
    "void aiter::cross_device_reduce_1stage_naive<opus::bf16_t, 8>(aiter::RankData*)",
    "void aiter::reduce_scatter_cross_device_store<__half, 8>(aiter::RankData*)",
    "void quickreduce::allreduce_prototype_twoshot<quickreduce::AllReduceTwoshot<...> >(...)",
    "void c10d::symmetric_memory::(anonymous namespace)::multimem_all_reduce_kernel<c10::BFloat16>",
    "multimem_all_reduce_kernel",
    "void multimem_one_shot_all_reduce_kernel<c10::BFloat16, 16>(c10::BFloat16*, unsigned long)",
    "void one_shot_all_reduce_kernel<c10::BFloat16, 16, 4>(c10::BFloat16**)",
    "void two_shot_all_reduce_kernel_inplace<c10::BFloat16, 16, 8>(c10::BFloat16**)",
    "c10d::symmetric_memory::barrier_kernel(unsigned int**, int, int, int, unsigned long)",
    "void tensorrt_llm::kernels::oneShotAllReduceKernel<__nv_bfloat16, 8>(AllReduceParams)",
    "void tensorrt_llm::kernels::twoShotAllReduceKernel<half, 2>(AllReduceParams)",
    "void tensorrt_llm::kernels::reduce_scatter::lamport_style_one_shot_kernel<half>(Params)",
    "void flashinfer::trtllm_mnnvl_allreduce::twoshotAllreduceKernel<8, __half>(__half*)",
    "void deep_ep::intranode::dispatch<8, 768>(int4*, float*)",
    "void deep_ep::internode_ll::combine<false, 3, 7168>(void*, void*, int*)",
    "void deep_ep::intranode::notify_dispatch<8>(int const*)",
    "_ZN7deep_ep9intranode8dispatchILi8ELi768EEEvP4int4",
    "nvshmemi_transfer_rma_p2p<0>",
    "void c10d::nvshmem_extension::all_to_all_v_2d<true>(void*)",
    "void pplx::a2a::dispatch_kernel<1>(int)",
    "void tensorrt_llm::kernels::mnnvl_throughput::moeA2ADispatchKernel<TopK8>(Params)",
    "mori::moe::EpDispatchIntraNodeKernel<hip_bfloat16>(mori::moe::EpDispatchCombineArgs)",
    "userbuffers_fp16_sum_inplace_gpu_rr_rs(int, int)",
    "ncclDevFuncRun_AllGather_RING_SIMPLE",
    "custom_all_gather_kernel<4>(int)",
    "void hybrid_ep::dispatch_kernel<8>(int)",
    "void nixl_ep::combine<7168>(int)",
    "void a2a_kernels::a2a_dispatch_send_kernel<1>(int)",
]
FUSED = [
    "void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<"
    "(flashinfer::trtllm_allreduce_fusion::AllReduceFusionPattern)1, __nv_bfloat16, 2>(Params)",
    "void tensorrt_llm::kernels::ar_fusion::allreduce_fusion_kernel_twoshot_sync<half>(Params)",
    "void tensorrt_llm::kernels::ar_fusion::moe::moereduce_allreduce_fusion_kernel<half>(P)",
    "void tensorrt_llm::kernels::lamport_style_one_shot_all_reduce_norm_kernel<half, true>(P)",
    "void flashinfer::trtllm_mnnvl_allreduce::rmsNormLamport<1, 8, __nv_bfloat16>(void*)",
    "void flashinfer::trtllm_mnnvl_allreduce::oneshotAllreduceFusionKernel<8, half>(half*)",
    "void aiter::local_device_load_rmsnorm<opus::bf16_t, 512>(aiter::RankSignals)",
    "void aiter::allreduce_fusion_kernel_1stage<opus::bf16_t, 8>(int)",
    "void cutlass::Kernel2<bytedance::flux::Sm80GemmWithReduceScatter<float> >(Params)",
    "kernel_consumer_gemm_rs_persistent",
    "fused_gemm_all_reduce_kernel",
    "userbuffers_fp16_sum_inplace_gpu_mc_rs_rmsnorm(int)",
    "void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cutlass::gemm::kernel::"
    "detail::PersistentAsyncInputScheduler<1> > >(Params)",
]
COMPUTE = [
    "triton_red_fused_add_all_reduce_mean_pow_0",
    "triton_poi_fused_all_gather_into_tensor_1",
    "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_splitK_TNT",
    "void cublasLt::splitKreduce_kernel<32, 16, int, float>(cublasLt::cublasSplitKParams<float>)",
    "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float> >(at::native::ReduceOp)",
    "void at::native::_scatter_gather_elementwise_kernel<128, 8>(int)",
    "void at::native::vectorized_gather_kernel<16, long>(char*, char*, long*, int, long)",
    "void cub::DeviceReduceKernel<cub::DeviceReducePolicy<float> >(float*)",
    "void pytorch_flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128> >(Params)",
    "void my::gemm<float>(ncclDevComm*, ncclWindow_vidmem*)",
    "void softmaxBlockAllReduce<float>(float*)",
    "void deep_ep::layout::get_dispatch_layout<256, 4>(int)",
    "moeA2APrepareDispatchKernel",
    "void tensorrt_llm::kernels::moe_comm::moeA2APrepareCombineKernel<8>(int)",
    "tensorrt_llm::kernels::moe_comm::moeA2ASanitizeExpertIdsKernel(int*)",
    "void vllm::rms_norm_kernel<c10::BFloat16>(c10::BFloat16*)",
    "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT448x32x64",
    "kernel_unified_attention_2d",
    "something_nobody_has_seen",
]


@pytest.mark.parametrize("name", COMM)
def test_communication(name):
    assert classifier().classify(name)[0] == "comm"


@pytest.mark.parametrize("name", FUSED)
def test_fused_is_booked_on_neither_side(name):
    assert classifier().classify(name)[0] == "comm_fused"


@pytest.mark.parametrize("name", COMPUTE)
def test_compute(name):
    assert classifier().classify(name)[0] == "compute"


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("Memcpy DtoH (Device -> Pinned)", "memcpy", ("memcpy", "memcpy")),
        ("Memset (Device)", "memset", ("memset", "memset")),
        ("Memcpy DtoD (Device -> Device)", "kernel", ("memcpy", "copy-kernel")),
        ("__amd_rocclr_copyBuffer", "kernel", ("memcpy", "copy-kernel")),
        ("CopyDeviceToHost", "kernel", ("memcpy", "copy-kernel")),
        ("__amd_rocclr_fillBufferAligned", "kernel", ("memset", "fill-kernel")),
        ("lamport_initialize_kernel", "kernel", ("memset", "lamport-init")),
        ("aten::mm", "op", ("compute", "host-compute")),
        ("aten::mm", "host_op", ("other", "host-launch")),
        ("gloo:all_reduce", "op", ("comm", "host-collective")),
        ("c10d::allreduce_", "op", ("comm", "host-collective")),
        ("aten::copy_", "op", ("memcpy", "host-copy")),
        ("cudaLaunchKernel", "runtime", ("runtime", "runtime")),
        ("Activity Buffer Request", "overhead", ("overhead", "profiler")),
        ("anything", "no such kind", ("other", "unclassified")),
    ],
)
def test_other_kinds(name, kind, expected):
    assert classifier().classify(name, kind) == expected


def test_unknown_kernels_are_counted_as_unknown():
    name = "something_nobody_has_seen"
    assert classifier().classify(name) == ("compute", classify.UNKNOWN_KERNEL)


@pytest.mark.parametrize(
    ("text", "name", "function"),
    [
        ("void a::b<c::d>(e*)", "a::b", "b"),
        ("void (anonymous namespace)::f<float>(int)", "f", "f"),
        ("std::enable_if<!(false), void>::type x::gemvx::kernel<int>(int)", "x::gemvx::kernel", 0),
        ("void cut::off<at::native", "cut::off", "off"),
        ("plain_name", "plain_name", "plain_name"),
        ("", "", ""),
    ],
)
def test_name_forms(text, name, function):
    forms = name_forms(text)
    assert forms["name"] == name
    assert forms["function"] == (function or name.rpartition("::")[2])
    assert forms["full"] == text


def test_shipped_rules_are_sound():
    rules = load_rules()
    ids = [rule.id for rule in rules]
    assert len(ids) == len(set(ids))
    assert {kind for rule in rules for kind in rule.kinds} == KINDS
    assert set(KINETO_KINDS.values()) <= KINDS
    assert all(rule.note for rule in rules)
    for kind in KINDS:  # nothing falls through
        assert classifier().classify("\x00no such name", kind)[1] != "unclassified"


def test_every_shipped_kernel_rule_can_match():
    seen = {classifier().classify(name)[1] for name in (*COMM, *FUSED, *COMPUTE)}
    wanted = {rule.id for rule in load_rules() if rule.category in ("comm", "comm_fused")}
    assert wanted - seen - {"host-collective"} == set()


@given(st.text(max_size=300), st.sampled_from(sorted(KINDS)))
def test_every_name_gets_a_category_and_its_rule(name, kind):
    category, rule = classifier().classify(name, kind)
    assert category in CATEGORIES
    assert rule in {each.id for each in classifier().rules if kind in each.kinds}


balanced = st.recursive(
    st.sampled_from(["int", "float*", "ncclDevComm*", "x::all_reduce", "vllm::RankData"]),
    lambda inner: st.builds("t<{}, {}>".format, inner, inner),
    max_leaves=5,
)


@given(st.sampled_from(["my::f", "vllm::cross_device_reduce_1stage", "ncclKernel_X"]), balanced)
def test_parameters_never_decide(name, argument):
    forms = name_forms(f"void {name}<{argument}>({argument})")
    assert forms["name"] == name
    expected = classifier().classify(name)
    assert classifier().classify(f"{name}({argument})") == expected


@given(st.text(alphabet="<>()", max_size=5000))
def test_absurd_nesting_ends(text):
    assert name_forms(text)["name"] == ""


def test_first_rule_wins():
    any_kernel = frozenset({"kernel"})
    rules = [Rule("a", "comm", any_kernel), Rule("b", "compute", any_kernel)]
    assert Classifier(rules).classify("x") == ("comm", "a")
    assert Classifier(rules[::-1]).classify("x") == ("compute", "b")


def test_user_rules_come_first(tmp_path, monkeypatch):
    path = tmp_path / "rules.toml"
    path.write_text(
        '[[rule]]\nid = "mine"\ncategory = "comm"\nkinds = ["kernel"]\nname = "nobody_has"\n'
    )
    monkeypatch.setenv(classify.RULES_ENV, str(path))
    assert classifier().classify("something_nobody_has_seen") == ("comm", "mine")
    assert classifier().classify("nvjet_x")[1] == "gemm"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[rule]]\nid = 'x'\n", "rule 1 lacks category, kinds"),
        ("[[rule]]\nid='x'\ncategory='nope'\nkinds=['kernel']\n", "no such category: 'nope'"),
        ("[[rule]]\nid='x'\ncategory='comm'\nkinds=['gpu']\n", "kinds must be a list of"),
        ("[[rule]]\nid='x'\ncategory='comm'\nkinds=['kernel']\nname='('\n", "not a regular"),
        ("[[rule]]\nid='x'\ncategory='comm'\nkinds=['op']\nname='a'\nfull='b'\n", "give one"),
        ("[[rule]]\nid='x'\ncategory='comm'\nkinds=['op']\npattern='a'\n", "unknown keys: pattern"),
        ("rule = 3\n", "must be a list of tables"),
        ("rule = [3]\n", "rule 1 is not a table"),
        ("[[rule\n", "cannot read"),
    ],
)
def test_bad_rules_are_refused_with_the_place(tmp_path, text, says):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"rules\.toml") as caught:
        load_rules(path)
    assert says in caught.value.message


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        load_rules(tmp_path / "absent.toml")
