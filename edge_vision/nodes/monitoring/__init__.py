"""Observes stages, pipelines, machine and ROS graph."""
