"""Data of a study: images of clips (clips), labels (ground_truth), stored outputs (prediction_file), and all
of it in the folder of the study (dataset)."""
