"""The answer of one run: `model` (what it holds), `load` (the questions that make it)."""

from harness_analysis.answer.correctness import read_correctness
from harness_analysis.answer.load import load_answer
from harness_analysis.answer.model import (
    ALL,
    Answer,
    Clock,
    CollectorState,
    Correctness,
    Coverage,
    FoundFact,
    Latency,
    Overhead,
    Parts,
    RankBreakdown,
    RunFacts,
    Throughput,
    Unanswered,
    total_parts,
)

__all__ = [
    "ALL",
    "Answer",
    "Clock",
    "CollectorState",
    "Correctness",
    "Coverage",
    "FoundFact",
    "Latency",
    "Overhead",
    "Parts",
    "RankBreakdown",
    "RunFacts",
    "Throughput",
    "Unanswered",
    "load_answer",
    "read_correctness",
    "total_parts",
]
