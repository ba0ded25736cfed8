"""Pages in the browser: a small HTTP server, and the live page of running pipelines. Imports no ROS."""
