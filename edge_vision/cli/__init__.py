"""The command `edge-vision`: one file or folder for each subcommand."""
