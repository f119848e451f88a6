"""Simulated recordings in the file formats of the real data sets."""
