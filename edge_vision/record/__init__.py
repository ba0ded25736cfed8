"""The flight recorder, without ROS: the last seconds in memory, and files in MCAP when something happens.

ring            `record/ring.py`            messages in memory, bounded in bytes
rules           `record/rules.py`           what starts a recording
recorder        `record/recorder.py`        the thread: encodes images, writes files
recording_file  `record/recording_file.py`  a file that survives a kill, and its recovery
mcap_writer     `record/mcap_writer.py`     ROS 2 messages in MCAP; also of `edge-vision run --out`
folder          `record/folder.py`          names, retention, leftovers
definitions     `record/definitions.py`     the definitions of message types
annotations     `record/annotations.py`     boxes for the Image panel of Foxglove
"""
