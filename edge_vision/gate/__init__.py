"""The frame gate: which frames are inferred, and why."""
