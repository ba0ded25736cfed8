"""The demo: the real pipeline on a video, watched from outside, with its results as files.

    python -m edge_vision.demo --source clip.mp4 --backend openvino

process   `demo/process.py`   the pipeline's own executable as a child, without orphans
record    `demo/record.py`    what came in: detections, ages, books
live      `demo/live.py`      the line that shows it while it runs
video     `demo/video.py`     annotated.mp4 and annotated.png, made after the run
app       `demo/app.py`       from the command line to the last words
summary   `demo/summary.py`   summary.json, detections.jsonl, and the last words
"""
