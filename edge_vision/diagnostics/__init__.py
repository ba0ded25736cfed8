"""Why nothing is published, and the load of the machine and of the processes."""
