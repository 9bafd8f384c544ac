"""Tables of results as people write them, and the rules that they break."""

from __future__ import annotations

from harness_analysis.audit import audit_claims
from harness_analysis.audit.claims import claim_table


def table(title, head, *rows):
    found = claim_table(title, [h.strip() for h in head.split("|")],
                        [[cell.strip() for cell in row.split("|")] for row in rows])  # fmt: skip
    assert found is not None
    return found


def rules(*tables, but=("too-few-samples",)):
    return {flag.rule for flag in audit_claims(tables)} - set(but)
