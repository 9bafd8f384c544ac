"""The catalogue: one small database over all runs of a folder, rebuilt from them at any time.

Jobs never write it. Who asks refreshes it: reads the runs that are new or changed, writes a copy
and renames it into place, so that any number of readers and refreshers may work at once; what one
of them misses the next one adds, since the folder of runs is the truth.
"""

from harness_analysis.catalogue.refresh import Entry, refresh_catalogue

__all__ = ["Entry", "refresh_catalogue"]
