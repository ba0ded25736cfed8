"""The report of a study: report.json, report.html, and tables for the terminal."""
