"""The reference: what the every-frame detector finds on a clip, and the events in it."""
