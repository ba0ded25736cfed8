"""Networks: pruned, cut, new, searched."""
