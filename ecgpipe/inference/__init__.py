"""Using a trained model: load, predict, export, describe."""
