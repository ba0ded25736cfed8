"""The demo: the real pipeline on a video, watched from outside, with its results as files.

    python -m edge_vision demo --source clip.mp4 --backend openvino

process   `cli/demo/process.py`   the pipeline's own executable as a child, without orphans
record    `cli/demo/record.py`    what came in: detections, ages, books
live      `cli/demo/live.py`      the line that shows it while it runs
video     `cli/demo/video.py`     annotated.mp4 and annotated.png, made after the run
app       `cli/demo/command.py`       from the command line to the last words
summary   `cli/demo/summary.py`   summary.json, detections.jsonl, and the last words
"""
