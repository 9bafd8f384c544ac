"""What perf prints, real and of our own making, and its rows."""

from __future__ import annotations

import gzip
from pathlib import Path

from support import SAMPLES

from harness_collectors.perf import COLLECTOR
from harness_schemas.spi import IngestContext

LOGS = SAMPLES / "logs" if SAMPLES else Path()


def read(path):
    data = path.read_bytes()
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8", "replace")


def ingest(*paths, root=None):
    """Batches by table, as rows."""
    tables = {"perf_counters": [], "samples": [], "collection": []}
    for batch in COLLECTOR.ingest(list(paths), IngestContext(root or paths[0].parent)):
        tables[batch.table] += batch.data.to_pylist()
    return tables


JSON = """\
# started on Fri Nov 20 20:56:49 2026

{"interval" : 1.000000001, "counter-value" : "86.716831", "unit" : "msec", "event" : "task-clock", "event-runtime" : 86716831, "pcnt-running" : 100.00, "metric-value" : 0.86, "metric-unit" : "CPUs utilized"}
{"interval" : 1.000000001, "counter-value" : "5000.000000", "unit" : "", "event" : "cycles:u", "event-runtime" : 43, "pcnt-running" : 50.00, "metric-value" : "0.000000", "metric-unit" : "(null)"}
{"interval" : 1.000000001, "counter-value" : "<not supported>", "unit" : "", "event" : "instructions:u", "event-runtime" : 0, "pcnt-running" : 100.00, "metric-value" : 0.000000, "metric-unit" : ""}
{"interval" : 2.500000002, "counter-value" : "<not counted>", "unit" : "msec", "event" : "task-clock", "event-runtime" : 0, "pcnt-running" : 100.00, "metric-value" : 0.000000, "metric-unit" : ""}
{"interval" : 2.500000002, "counter-value" : "0.000000", "unit" : "", "event" : "cycles:u", "event-runtime" : 0, "pcnt-running" : 0.00, }
{"interval" : 2.500000002, "metric-value" : 0.5, "metric-unit" : "insn per cycle"}
"""  # noqa: E501
CSV = """\
# started on Fri Nov 20 20:56:49 2026

     1.000000001,CPU0,86.72,msec,task-clock,86716831,100.00,0.867,CPUs utilized
     1.000000001,CPU1,5000,,cpu/event=0x3c,umask=0x0,name=x/,43,49.99,,
     1.000000001,CPU1,<not counted>,,cycles:u,0,100.00,,
     2.500000002,CPU0,7,,context-switches,86716831,100.00,1.0,K/sec
     2.500000002,CPU0,,,,,,0.25,stalled cycles per insn
"""
PEOPLE = """\
# started on Fri Nov 20 20:56:49 2026


 Performance counter stats for 'python3 -c
1 + 1
2 cycles
':

          1.234,56 msec task-clock                       #    0,995 CPUs utilized
         1.234.567      cycles:u                         #    1,000 GHz             (49,90%)
   <not supported>      instructions:u
                 3      page-faults                      #   58.126 K/sec    ( +-  1.20% )

       1,240000000 seconds time elapsed

       1,001000000 seconds user
       0,200000000 seconds sys


"""
SCRIPT = """\
pt main thread 12/14 [003] 3752.005660:   10101010 cpu-clock:ppp: 
\t          12e43a _PyLong_Add+0x17a (/usr/lib/libpython3.13.so.1.0)
\t            31ef [unknown] (/bin/dd)
\t    7f2eb2b31c2c [unknown] ([unknown])

swapper     0 [000] 3752.1: cycles:  ffffffff81 native_safe_halt+0xb ([kernel.kallsyms])

gone 13 3752.2: 1 cycles: 

"""  # noqa: W291
