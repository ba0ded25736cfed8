"""The demo: the real pipeline on a video, observed from outside, with its results as files.

    python -m edge_vision demo --source clip.mp4 --backend openvino

command   `cli/demo/command.py`   command line, run, results
live      `cli/demo/live.py`      the progress line
video     `cli/demo/video.py`     annotated.mp4 and annotated.png
summary   `cli/demo/summary.py`   summary.json, detections.jsonl, and the text at the end

The pipeline as a child process, and the record of what was received, are in `evaluate/live/`.
"""
