"""Gate, cascade, detector and tracker measured together against baselines."""
