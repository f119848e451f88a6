"""What `gpu.py` measures, keeps and reports."""
