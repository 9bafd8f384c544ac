"""The tables of a plan: what the model is, memory of the worst rank, stages, a step, splits."""

from __future__ import annotations

from dataclasses import dataclass

from harness.planning.request import Request
from harness.sections import Section
from harness_runners.capacity import fit as fits
from harness_runners.capacity.hardware import Card
from harness_runners.capacity.memory import kv_bytes_per_token, plan_ranks, worst_rank
from harness_runners.capacity.shards import DTYPE_BYTES, weights_slice
from harness_runners.capacity.split import Layout, make_layout
from harness_runners.capacity.steptime import StepFloor, decode_floor, prefill_floor
from harness_runners.model.shape import Shape
from harness_schemas.units import format_bytes

GIB = 1 << 30


@dataclass(frozen=True)
class Plan:
    """A request with its split decided, and every split that was weighed (None: no card)."""

    request: Request
    layout: Layout
    splits: tuple[fits.Fit, ...]
    why: str


def decide(request: Request) -> Plan:
    """The request's own split, or the suggested one; of what fits nothing, the largest."""
    shape, work, card = request.shape, request.work, request.card
    if card is None:
        return Plan(request, request.layout or make_layout(shape, 1, 1), (), "")
    contexts = fits.contexts_for(shape, work.context)
    splits = fits.table(shape, work, card, request.links, contexts)
    found = fits.suggest(splits, request.links)
    if found is None:
        why = f"no split of up to {splits[-1].layout.ranks} {card.name} holds this"
        return Plan(request, request.layout or splits[-1].layout, tuple(splits), why)
    best, reason = found
    why = f"suggested: tp {best.layout.tp} x pp {best.layout.pp}: {reason}"
    return Plan(request, request.layout or best.layout, tuple(splits), why)


def plan_sections(plan: Plan) -> list[Section]:
    """Every table of a plan."""
    found = [_model(plan), _memory(plan), _stages(plan)]
    if plan.request.card is not None:
        found += [_step(plan, plan.request.card), _splits(plan, plan.request.card)]
    return found


def gib(value: float) -> float:
    """GiB with three digits behind the point."""
    return round(value / GIB, 3)


def _mib(value: float) -> float:
    return round(value / (1 << 20), 1)


# -- the model ----------------------------------------------------------------------------------


def _model(plan: Plan) -> Section:
    shape, work = plan.request.shape, plan.request.work
    whole = weights_slice(shape, DTYPE_BYTES[work.dtype], 1, 0, shape.layers, True, True)
    token, bounded = kv_bytes_per_token(shape, work.kv_dtype)
    size = f"{DTYPE_BYTES[work.kv_dtype]:g} B"
    formula = f"2 x {shape.layers} layers x {shape.kv_heads} KV heads x {shape.head_dim} x {size}"
    rows = [
        ("parameters", _count(whole.params), _parameters(shape, whole.active)),
        ("weights", format_bytes(whole.bytes), _stored(shape, work.dtype)),
        ("KV cache a token", format_bytes(token), formula),
    ]
    if bounded and work.windowed:
        window = next(window for window in shape.windows if window)
        text = f"{sum(w is not None for w in shape.windows)} layers keep {window} tokens only"
        rows.append(("of which grows", format_bytes(token - bounded), text))
    return Section(
        "model",
        f"{shape.name}: {shape.layers} layers, hidden {shape.hidden}",
        ("quantity", "value", "formula"),
        rows,
        [*_kv_notes(shape, token), *plan.request.notes],
    )


def _count(number: float) -> str:
    return f"{number / 1e9:.3f} billion" if number >= 1e9 else f"{number / 1e6:.2f} million"


def _parameters(shape: Shape, active: float) -> str:
    if shape.experts:
        return (
            f"{shape.experts} experts, {shape.active_experts} a token: "
            f"{_count(active)} pass a token's way"
        )
    return (
        f"vocabulary {shape.vocab:,}, inner {shape.inner}, {'tied' if shape.tied else 'own'} head"
    )


def _stored(shape: Shape, dtype: str) -> str:
    text = f"{DTYPE_BYTES[dtype]:g} B a parameter"
    if shape.expert_bits and shape.expert_bits != shape.linear_bits:
        return f"{text}, experts {shape.expert_bits:g} bits with their scales"
    return f"{text}, linear layers {shape.linear_bits:g} bits" if shape.linear_bits else text


def _kv_notes(shape: Shape, token: int) -> list[str]:
    if shape.kv_heads == shape.heads:
        return []
    times = shape.heads // shape.kv_heads
    return [
        f"keys and values are kept for {shape.kv_heads} KV heads, each shared by {times} query "
        f"heads; counting all {shape.heads} would say {format_bytes(token * times)} a token, "
        f"{times} times too much"
    ]


# -- memory ------------------------------------------------------------------------------------


def _memory(plan: Plan) -> Section:
    request, layout = plan.request, plan.layout
    rank = worst_rank(request.shape, layout, request.work)
    rows = [
        (part.name, format_bytes(part.bytes), part.bytes, part.basis, part.formula)
        for part in rank.parts
    ]
    where = f"stage {rank.stage}, TP rank {rank.tp_rank}"
    rows.append(("sum", format_bytes(rank.bytes), rank.bytes, "", where))
    notes = []
    if request.card is not None:
        notes.append(_verdict(rank.bytes, request.card))
    work = request.work
    title = (
        f"Memory of the rank that needs most, tp {layout.tp} x pp {layout.pp}, "
        f"batch {work.batch}, context {work.context:,} ({work.prompt:,} of prompt), {work.dtype}"
    )
    columns = ("part", "size", "bytes", "basis", "formula")
    return Section("memory", title, columns, rows, notes)


def _verdict(needed: int, card: Card) -> str:
    free = card.memory_bytes - needed
    if free < 0:
        return f"does not fit {card.name} ({gib(card.memory_bytes)} GiB): {gib(-free)} GiB too much"
    return f"fits {card.name} ({gib(card.memory_bytes)} GiB): {gib(free)} GiB left"


def _stages(plan: Plan) -> Section:
    request, layout = plan.request, plan.layout
    ranks = plan_ranks(request.shape, layout, request.work)
    rows = []
    for rank in ranks:
        names = layout.stage_layers(rank.stage)
        span = f"{names[0]}-{names[-1]}"
        parts = [_mib(rank.part(name)) for name in ("weights", "KV cache")]
        number = rank.stage * layout.tp + rank.tp_rank
        rows.append((number, rank.stage, rank.tp_rank, span, *parts, _mib(rank.bytes)))
    columns = ("rank", "stage", "tp_rank", "layers", "weights_mib", "kv_mib", "sum_mib")
    notes = ["the embedding is whole on every rank of the first stage; shards may be uneven"]
    return Section("ranks", "Every rank", columns, rows, notes)


# -- a step -------------------------------------------------------------------------------------


def _step(plan: Plan, card: Card) -> Section:
    request, layout = plan.request, plan.layout
    floor = decode_floor(request.shape, layout, request.work, card, request.links)
    rows: list[tuple[object, ...]] = []
    for stage in floor.stages:
        rows += _stage_rows(stage.stage, floor, card)
    for index, hop in enumerate(floor.hops):
        feedback = index == layout.pp - 1
        what = "tokens back" if feedback else "activation"
        size = 8 * request.work.rows if feedback else floor.hop_bytes
        rows.append((f"hop {index}", _ms(hop.ns), hop.basis, f"{what}, {format_bytes(size)}"))
    rows.append(("step", _ms(floor.ns), "", f"bound by {floor.limit}"))
    prefill = prefill_floor(request.shape, layout, request.work, card, request.links)
    text = f"{prefill.flops / 1e12:.4g} TFLOP, all-reduces and hops {_ms(prefill.comm_ns)} ms"
    rows.append(("prefill", _ms(prefill.ns), card.source, text))
    notes = [
        f"floor of a step: at most {floor.tokens_per_s:,.0f} tokens/s; launches, slower kernels "
        "and late ranks come on top"
    ]
    if any(row[2] in ("assumed", "datasheet") for row in rows):
        notes.append("datasheet and assumed figures: --measured takes floors.json or a run")
    return Section(
        "step",
        f"Floor of a decode step on {card.name}",
        ("part", "ms", "basis", "what"),
        rows,
        notes,
    )


def _stage_rows(number: int, floor: StepFloor, card: Card) -> list[tuple[object, ...]]:
    stage = floor.stages[number]
    name = f"stage {number}"
    read = f"reads weights {format_bytes(stage.weight_bytes)}, KV {format_bytes(stage.kv_bytes)}"
    read += f" at {card.bandwidth / 1e12:.3g} TB/s"
    work = f"{stage.flops / 1e9:.4g} GFLOP at {card.flops / 1e12:.4g} TFLOP/s"
    slower = max(stage.memory_ns, stage.compute_ns)
    rows: list[tuple[object, ...]] = [
        (name, _ms(slower), card.source, read if stage.memory_ns == slower else work)
    ]
    if stage.reduces:
        text = f"{stage.reduces} all-reduces of {format_bytes(stage.reduce_bytes)}, "
        text += f"{stage.reduce.ns / 1e3:.3g} us each"
        if stage.head_reduce:
            text += f", and the logits' {stage.head_reduce.ns / 1e3:.3g} us"
        rows.append((f"{name} all-reduces", _ms(stage.comm_ns), stage.reduce.basis, text))
    return rows


def _ms(ns: float) -> float:
    return round(ns / 1e6, 4)


# -- splits -------------------------------------------------------------------------------------


def _splits(plan: Plan, card: Card) -> Section:
    contexts = [context for context, _ in plan.splits[0].batches]
    columns = ("tp", "pp", "gpus", "weights_gib", "needs_gib", "fits")
    names = [f"at_{_tokens(context)}" for context in contexts]
    rows = []
    for fit in plan.splits:
        head = (fit.layout.tp, fit.layout.pp, fit.layout.ranks, gib(fit.weights), gib(fit.needed))
        batches = [batch for _, batch in fit.batches]
        rows.append((*head, fit.fits, *batches, _ms(fit.step_ns), round(fit.tokens_per_s)))
    notes = [plan.why]
    refused = sorted({fit.refused for fit in plan.splits if fit.refused})
    notes += refused[:2]
    return Section(
        "splits",
        f"Splits over {card.name}: the largest batch at each context (0: none fits)",
        (*columns, *names, "step_ms", "tok_per_s"),
        rows,
        notes,
    )


def _tokens(count: int) -> str:
    return f"{count // 1024}k" if count % 1024 == 0 else str(count)
