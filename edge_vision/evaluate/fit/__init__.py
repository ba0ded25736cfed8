"""Fits a stage of a cascade to the user's own video, with the detector as the teacher.

    video -> teacher's boxes -> looks with labels -> frozen features -> linear head -> thresholds -> bundle

`splits` keeps what is fitted on apart from what is judged on, `samples` takes the looks, `head` fits,
`threshold` states a recall with a confidence, `check` plays the result on video, `write` makes the bundle.
"""
