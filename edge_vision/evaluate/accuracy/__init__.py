"""Accuracy against labels: average precision and recall of detectors, and HOTA of published tracks."""
