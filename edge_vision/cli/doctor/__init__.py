"""Doctor: a check list of a running system and of the installation, for people and for scripts.

    python -m edge_vision doctor             both
    python -m edge_vision doctor --running   what runs: /diagnostics, and the graph
    python -m edge_vision doctor --install   packages, backends, models, machine, DDS

Imports no ROS; what listens to it is `nodes/system_probe.py`. What may crash has a process of its own.
"""
