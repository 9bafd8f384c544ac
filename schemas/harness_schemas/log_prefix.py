"""What launchers, containers and engines put in front of a program's own line, and the rank in it.

Forms seen in real logs: colours (with their escape sign, or as syslog and web pages leave them),
times (container runtimes, syslog, ISO), docker compose, kubectl, srun's and Open MPI's labels,
torchrun's, Ray's, and the heads of vLLM, SGLang, TensorRT-LLM and DeepSpeed.
"""

from __future__ import annotations

import re
from typing import Final

_COLOUR: Final = re.compile(
    r"(?:\x1b|\^\[|#033|\\x1b|\\033|\\u001b)\[[0-9;?]{0,16}[A-Za-z]|(?:^|(?<=[\s)]))\[(?:\d{1,3};)*\d{1,3}m"
)
_COLOURED: Final = ("\x1b", "^[", "#033", "\\x1b", "\\033", "\\u001b", "m(", "m[")
_TIME: Final = r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_LEVEL: Final = r"(?:ERROR|CRITICAL|FATAL)"
"""Only these: a line of a lower level keeps its head, for it is no cause."""
_PREFIX: Final = re.compile(
    "|".join(
        (
            r"> ?(?=[^\s>]|> ?\S)",  # a quotation in Markdown or a mail
            rf"\[{_TIME}(?P<sglang>(?: (?:DP|PP|TP|EP|CP|MOE)\d{{1,4}}){{1,6}})\] ",
            rf"\[?{_TIME}\]?(?: (?:stdout|stderr) [FP])?:?(?:\s+|$)",
            r"\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\](?: \[TRT-LLM\])?"
            r"(?: \[RANK (?P<trt>\d{1,6})\])?(?: \[[EF]\])?\s+",
            r"(?:\[TensorRT-LLM\])?\[ERROR\] ",
            r"\[(?P<scheduler>(?:(?:DP|PP|TP|EP)\d{1,4} ?){1,4})\] ",
            r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [\w.-]{1,80} [\w.()/-]{1,60}(?:\[\d+\])?: ",
            r"[\w.-]{1,80} {0,40}\| ",  # docker compose
            r"\[pod/[\w./-]{1,250}\] ",  # kubectl logs --prefix
            r"\[(?P<torch>rank\d{1,6})\]: ?",
            r"\[(?:default|trainer|worker)_?\d{1,6}\]: ?",  # torchrun --tee: a local rank
            r"\s*[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}(?=\[\d)",  # of mpirun
            r"\[(?:[\w.@-]{1,80}@)?\d{1,6},(?:mpirank:)?(?P<mpi>\d{1,6})(?:,[\w.-]{1,80})?\]"
            r"<std\w+>: ?",
            r"\[(?P<horovod>\d{1,6})\]<std\w+>: ?",
            r"\[(?:[\w.-]{1,80}:)?\d{1,9}\] ",
            r"(?:[\w.-]{1,80} )?\[?(?:stdout|stderr)\]?:? ",
            rf"{_LEVEL} \d\d-\d\d \d\d:\d\d:\d\d \[?[\w./-]{{1,80}}:\d{{1,6}}\] ?",
            r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})? ",
            rf"\[{_LEVEL}\] \[[\w./-]{{1,80}}:\d{{1,6}}(?::\w{{1,60}})?\] ",
            rf"{_LEVEL}:[\w.]{{1,80}}:",
            r"\((?:[A-Za-z]{1,30}_)?(?P<vllm>(?:DP\d+_|PP\d+_|TP\d+_|EP\d+_|CP\d+_)*"
            r"(?:DP|PP|TP|EP|CP)\d{1,4}) pid=\d{1,10}\) ?",
            r"\([A-Za-z_][\w.:<>-]{0,80}(?:\([^()]{0,80}\))?(?: rank=(?P<ray>\d{1,6}))?"
            r" pid=\d{1,10}(?:, ip=[\w.:]{1,60})?\) ?",
            r"[a-z][a-z-]{0,40}\d[\w.-]{0,60}: (?=\S)",  # pdsh, dsh: a host
        )
    )
)
_GLUED: Final = re.compile(r"\[rank(\d{1,6})\]:(?=\[[EWFI])")
_TRAILING: Final = re.compile(r"\srank=(\d{1,6})\s*$")
"""Of the launcher of text-generation-inference, behind what a shard said."""
_LABEL: Final = re.compile(r"\s{0,5}(?!\d\d:\d\d:\d\d)(\d{1,6}): ?")
_PARALLEL: Final = re.compile(r"(DP|PP|TP|EP|CP|MOE)(\d+)")
_MOST: Final = 6
_FEW: Final = 40
_LAST: Final = 16


def peeled(text: str, labelled: bool = False) -> tuple[str, int | None]:
    """A line without what others put in front of it, and the rank that they name.

    `labelled`: its file has `srun --label`'s task in front of every line. A rank within tensor
    parallelism is the rank only where nothing else divides the model; a local rank is none.
    """
    text = _COLOUR.sub("", text) if any(sign in text for sign in _COLOURED) else text
    rank: int | None = None
    for _ in range(_MOST):
        if labelled and (label := _LABEL.match(text)):
            rank, text, labelled = int(label[1]), text[label.end() :], False
        match = _PREFIX.match(text)
        if match is None or match.end() == 0:
            break
        named = _rank_in(match)
        rank, text = rank if named is None else named, text[match.end() :]
    if rank is None and (glued := _GLUED.search(text)):  # to a progress bar
        rank, text = int(glued[1]), text[glued.end() :]
    if rank is None and (trailing := _TRAILING.search(text[-_LAST:])):
        rank = int(trailing[1])
    return text, rank


def without_prefixes(text: str) -> str:
    """A text without what others put in front of its lines."""
    lines = text.splitlines()
    labelled = is_labelled([line for line in lines if line.strip()])
    return "\n".join(peeled(line, labelled)[0] for line in lines) + "\n"


def is_labelled(lines: list[str]) -> bool:
    """Whether nearly all lines begin with a task's number and a colon, but for other prefixes.

    Tasks repeat, and come in no order; numbers of lines or of stack frames do neither.
    """
    if _all_labelled(lines):
        return True
    few = [peeled(line)[0] for line in lines[:_FEW]]
    return _all_labelled(few) and _all_labelled([*few, *(peeled(x)[0] for x in lines[_FEW:])])


def _all_labelled(lines: list[str]) -> bool:
    found = [int(label[1]) for line in lines if (label := _LABEL.match(line))]
    if len(found) < 4 or len(found) * 10 < len(lines) * 8:
        return False
    return len(set(found)) == 1 or (len(set(found)) < len(found) and found != sorted(found))


def _rank_in(match: re.Match[str]) -> int | None:
    if match["torch"]:
        return int(match["torch"][4:])
    for name in ("trt", "mpi", "horovod", "ray"):
        if match[name]:
            return int(match[name])
    where = match["sglang"] or match["scheduler"] or match["vllm"]
    parts = dict(_PARALLEL.findall(where)) if where else {}
    return int(parts["TP"]) if "TP" in parts and not {"DP", "PP"} & set(parts) else None
