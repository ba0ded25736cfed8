"""The nodes of the command line tools, each a process of its own: no pipeline imports them."""
