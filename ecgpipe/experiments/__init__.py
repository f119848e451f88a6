"""Presets of whole experiments, and the plan that the command line and the flow both execute."""
