"""The metrics of running pipelines for Prometheus: `python -m edge_vision metrics`.

command     `cli/metrics/command.py`      command line, HTTP server
exposition  `cli/metrics/exposition.py`   the metrics, made from the statuses
"""
