"""How frames, events and detections get into a node and out of it, by reference or over DDS."""
