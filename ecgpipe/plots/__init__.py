"""Figures: ECG plots, timelines of long recordings, learning curves."""
