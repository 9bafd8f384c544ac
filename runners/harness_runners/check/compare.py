"""Are a run's tokens and logits those of the reference? Numbers only, no torch.

The reference is fed the run's own tokens (teacher forcing), so that one difference does not
make everything after it incomparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

TOLERANCE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.25}
"""Largest logit error that rounding may explain, in standard deviations of the reference's
logits (at least 1). Layers in another order or without rotation are off by about one."""

MAX_TIE_SHARE = {"float32": 0.01, "float16": 0.1, "bfloat16": 0.2}
"""More ties than this say that something else than rounding is at work."""


@dataclass(frozen=True)
class Difference:
    """A position at which the reference prefers another token than the run took."""

    prompt: str
    position: int
    run_token: int
    reference_token: int
    gap: float
    logit_error: float
    tie: bool


@dataclass(frozen=True)
class PromptResult:
    """One prompt compared. Divergences are in nats, of the run from the reference."""

    id: str
    compared: int
    equal: int
    ties: int
    first_difference: Difference | None
    max_logit_error: float
    max_error_over_tolerance: float
    kl_mean: float
    kl_max: float
    consistent: bool


def compare_prompt(
    name: str, tokens: Sequence[int], run: np.ndarray, reference: np.ndarray, dtype: str
) -> PromptResult:
    """Compare logits [tokens, vocabulary] of run and reference.

    A difference is a tie where the reference itself hardly prefers its token: the gap is below
    twice the logit error measured there, and that error is one that rounding can explain.
    """
    chosen = np.asarray(tokens)
    rows = np.arange(len(chosen))
    errors = np.abs(run - reference).max(axis=1)
    tolerances = TOLERANCE[dtype] * np.maximum(reference.std(axis=1), 1.0)
    preferred = reference.argmax(axis=1)
    gaps = reference[rows, preferred] - reference[rows, chosen]
    ties = (preferred != chosen) & (gaps < 2 * errors) & (errors < tolerances)
    different = np.flatnonzero(preferred != chosen)
    # A difference that is no tie says more than one that is.
    first = next(
        (int(i) for i in different if not ties[i]), int(different[0]) if len(different) else None
    )
    divergence = _divergence(run, reference)
    return PromptResult(
        id=name,
        compared=len(chosen),
        equal=len(chosen) - len(different),
        ties=int(ties.sum()),
        first_difference=None
        if first is None
        else Difference(
            name,
            first,
            int(chosen[first]),
            int(preferred[first]),
            float(gaps[first]),
            float(errors[first]),
            bool(ties[first]),
        ),
        max_logit_error=float(errors.max()),
        max_error_over_tolerance=float((errors / tolerances).max()),
        kl_mean=float(divergence.mean()),
        kl_max=float(divergence.max()),
        consistent=bool((run.argmax(axis=1) == chosen).all()),
    )


def _divergence(run: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence KL(reference || run) of every row."""
    ours, theirs = _log_softmax(run), _log_softmax(reference)
    return np.asarray(np.maximum((np.exp(theirs) * (theirs - ours)).sum(axis=1), 0.0))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def summarise(results: Sequence[PromptResult], dtype: str) -> dict[str, Any]:
    """The totals and the verdict over all prompts, as result.json holds them."""
    compared = sum(result.compared for result in results)
    ties = sum(result.ties for result in results)
    reasons = _reasons(results, compared, ties, dtype)
    differences = [r.first_difference for r in results if r.first_difference is not None]
    differences.sort(key=lambda difference: difference.tie)
    first = asdict(differences[0]) if differences else None
    equal = sum(result.equal for result in results)
    return {
        "verdict": "fail" if reasons else "pass",
        "why": "; ".join(reasons) or _praise(compared, equal, ties),
        "prompts": len(results),
        "compared": compared,
        "equal": equal,
        "share": equal / compared if compared else None,
        "ties": ties,
        "first_difference": first,
        "max_logit_diff": max((r.max_logit_error for r in results), default=None),
        "mean_kl": sum(r.kl_mean * r.compared for r in results) / compared if compared else None,
        "max_kl": max((r.kl_max for r in results), default=None),
        "tolerance": TOLERANCE[dtype],
        "dtype": dtype,
        "per_prompt": [asdict(result) for result in results],
    }


def _reasons(results: Sequence[PromptResult], compared: int, ties: int, dtype: str) -> list[str]:
    """Why the comparison fails; empty: it passes."""
    if not compared:
        return ["the run kept no logits to compare"]
    reasons = []
    wrong = compared - sum(result.equal for result in results) - ties
    if wrong:
        reasons.append(f"{wrong} of {compared} tokens differ from the reference")
    beyond = max(result.max_error_over_tolerance for result in results)
    if not beyond < 1:
        error = max(result.max_logit_error for result in results)
        reasons.append(
            f"the largest logit error {error:.3g} is {beyond:.3g} times what {dtype} explains"
        )
    if ties > MAX_TIE_SHARE[dtype] * compared:
        limit = f"{MAX_TIE_SHARE[dtype]:.0%}"
        reasons.append(f"{ties} of {compared} tokens are ties, more than {limit}")
    if not all(result.consistent for result in results):
        reasons.append("the run took tokens that its own logits do not prefer")
    return reasons


def _praise(compared: int, equal: int, ties: int) -> str:
    if ties:
        return f"{equal} of {compared} tokens equal, the other {ties} are ties"
    return f"all {compared} tokens equal"
