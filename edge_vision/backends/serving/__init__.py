"""A loaded model, kept serving while backends fail and models change."""
