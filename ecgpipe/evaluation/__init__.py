"""From run folders to the report: every score is computed again from the saved predictions."""
