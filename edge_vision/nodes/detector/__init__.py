"""The parts of the detector node."""
