"""Images to train and to judge on."""
