"""Parameters, topics and services of every node, and the conversion to and from messages."""
