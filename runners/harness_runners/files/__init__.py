"""A run's files on a cluster: checksums of weights, copies of them on the nodes' own disks."""
