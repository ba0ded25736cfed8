"""The demo: one clip in the real pipeline twice, inferred on every frame and as the gate schedules it.

    python -m edge_vision demo --source clip.mp4 --preset economy

command      `cli/demo/command.py`      command line, the two runs, results
recording    `cli/demo/recording.py`    a camera or stream, recorded so that it can be played twice
comparison   `cli/demo/comparison.py`   figures of the runs, report.json, detections.jsonl, the table
video        `cli/demo/video.py`        annotated video and picture
live         `cli/demo/live.py`         the progress line

The pipeline as a child process, and the record of what was received, are in `evaluate/live/`; the metrics are
those of `evaluate/metrics/`.
"""
