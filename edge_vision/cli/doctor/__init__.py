"""Doctor: checks of the running system and of the installation, for people and for scripts.

    python -m edge_vision doctor             both
    python -m edge_vision doctor --running   the nodes: /diagnostics and the ROS graph
    python -m edge_vision doctor --install   packages, backends, models, machine, DDS

Imports no ROS: `system_probe.py` observes the graph. Whatever may crash runs in a child process.
"""
