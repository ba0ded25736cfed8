"""Types, geometry, concurrency and accounting that every other room uses. Imports no other room."""
