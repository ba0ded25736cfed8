"""Fits a stage of a cascade to the user's own video, with the detector as the teacher.

    video -> teacher's detections -> labelled crops -> frozen features -> linear head -> thresholds -> bundle

`splits` separates fit from calibration, `samples` takes crops, `head` fits, `threshold` guarantees a recall
with a confidence, `replay` measures the result on video, `write` makes the bundle.
"""
