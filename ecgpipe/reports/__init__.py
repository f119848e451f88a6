"""Reports on runs beside the paper's results, and data cards of stores."""
