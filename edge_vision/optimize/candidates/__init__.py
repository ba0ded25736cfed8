"""Candidates: which are measured (search), by whom (table), and which one is chosen (pareto)."""
