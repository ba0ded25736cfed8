"""The metrics of the evaluation. Reports and tables derive from the list `METRICS` in `builtin.py`."""
