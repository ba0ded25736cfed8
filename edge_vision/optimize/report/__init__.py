"""What a study leaves behind: report.json, report.html, the chosen bundle."""
