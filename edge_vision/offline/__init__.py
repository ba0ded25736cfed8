"""What the commands that run without a robot share: result folders, progress, provenance, written bundles."""
