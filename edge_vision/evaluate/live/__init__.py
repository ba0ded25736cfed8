"""A running pipeline as a child process, and the record of what was received from it. The demo uses both."""
