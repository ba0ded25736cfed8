"""Places of detected objects in space: from depth or a ground plane, without ROS."""
