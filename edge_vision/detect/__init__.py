"""Detectors and classifiers: pre-processing, a session of a backend, a head, results in source pixels."""
