"""Hand-off between threads: worker, timeout, lease."""
