"""Files around a run: its cache, copies on nodes' own disks, checksums, what came from storage."""
