"""Reports that compare runs with the paper, and data cards of stores."""
