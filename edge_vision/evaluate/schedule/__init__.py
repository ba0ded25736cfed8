"""The presets of the scheduler on real clips, simulated and live, compared with fixed intervals."""
