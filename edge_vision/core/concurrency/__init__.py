"""Hand-off between threads: mailbox, worker, timeout, lease."""
