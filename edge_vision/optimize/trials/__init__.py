"""Trials of the optimizer: what runs in a process of its own, here, on a device or on a cluster.

executor    the interface, and the one of this machine; cluster: that of a Ray cluster
runner      stores outcomes; process: runs one trial; files: what it reads and writes
measure     times a candidate alternating with its parent (worker), and their agreement
build_only  builds an engine for a device that this machine lacks
"""
