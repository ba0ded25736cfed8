"""Video files, devices and streams as a camera."""
