"""Why nothing is published, and what the machine and the process cost."""
