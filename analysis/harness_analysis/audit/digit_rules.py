"""Rules for how numbers look: measured ones are neither equal, nor even, nor round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from harness_analysis.audit.claim_rules import Rule
from harness_analysis.audit.claims import MEASURED, SHARES, ClaimTable, Value
from harness_analysis.audit.flags import NOTICE, PROBLEM, Flag

UNLIKELY = 1e-3
FEWEST_VALUES = 8
FEWEST_STEPS = 4
DIGITS_THAT_MATTER = 3


def significant_digits(value: Value) -> str:
    """The digits as written, from the first that is not zero: 12.50 -> 1250."""
    if not value.number or not value.half:
        return ""
    units = abs(value.number) / (2 * value.half)
    return f"{round(units)}"


def identical_numbers(table: ClaimTable) -> list[Flag]:
    """The same measurement to three digits in several rows is a copy."""
    found = []
    for field in MEASURED:
        if field in ("speedup", "efficiency"):
            continue
        rows: dict[float, list[str]] = {}
        for row in table.rows:
            value = row.values.get(field)
            if value is not None and len(significant_digits(value)) >= DIGITS_THAT_MATTER:
                rows.setdefault(value.number, []).append(row.label)
        for number, labels in rows.items():
            if len(labels) > 1:
                found.append(
                    Flag("identical-numbers", PROBLEM, f"{table.name}: {'; '.join(labels)}",
                         f"{field} is {number:g} in {len(labels)} rows",
                         "measured times differ in their last digits: look for a copied row")
                )  # fmt: skip
    return found


def round_numbers(table: ClaimTable) -> list[Flag]:
    """Last digits of measurements are even spread; 0 and 5 are a fifth of them.

    Over all measured values of three digits or more that are not computed from others: the
    chance of so many round ones (binomial, one in five).
    """
    digits = [
        written
        for row in table.rows
        for field, value in row.values.items()
        if field in MEASURED and field not in ("speedup", "efficiency")
        and len(written := significant_digits(value)) >= 2
    ]  # fmt: skip
    if len(digits) < FEWEST_VALUES:
        return []
    rounded = sum(written[-1] in "05" for written in digits)
    chance = binomial_tail(len(digits), rounded, 0.2)
    if chance >= UNLIKELY:
        return []
    return [
        Flag("round-numbers", PROBLEM, table.name,
             f"{rounded} of {len(digits)} results end in 0 or 5, by chance {chance:.0e}",
             "these look chosen, not measured: show the runs behind them")
    ]  # fmt: skip


def binomial_tail(trials: int, successes: int, share: float) -> float:
    """Chance of at least so many successes."""
    return sum(
        math.comb(trials, k) * share**k * (1 - share) ** (trials - k)
        for k in range(successes, trials + 1)
    )


def even_steps(table: ClaimTable) -> list[Flag]:
    """Results that fall or grow by exactly the same step, or factor, from row to row."""
    found = []
    for field in MEASURED:
        values = [row.values[field] for row in table.rows if field in row.values]
        numbers = [value.number for value in values]
        if len(numbers) < FEWEST_STEPS or len(set(numbers)) < len(numbers):
            continue
        told = _evenness(numbers, max(value.half for value in values))
        if told:
            shown = ", ".join(f"{100 * n:g} %" if field in SHARES else f"{n:g}" for n in numbers)
            found.append(
                Flag("even-steps", NOTICE, table.name, f"{field}: {shown}: {told}",
                     "measurements scatter around a law, they do not lie on it")
            )  # fmt: skip
    return found


def _evenness(numbers: Sequence[float], half: float) -> str:
    steps = [b - a for a, b in pairwise(numbers)]
    if max(steps) - min(steps) < half * 0.01:
        return f"equal steps of {steps[0]:.3g}"
    if min(numbers) > 0:
        ratios = [b / a for a, b in pairwise(numbers)]
        if max(ratios) - min(ratios) < 1e-6 * max(ratios):
            return f"equal factors of {ratios[0]:.3g}"
    return ""


DIGITS: Sequence[Rule] = (identical_numbers, round_numbers, even_steps)
