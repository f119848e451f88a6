"""Reading and writing files on this machine, behind URLs and in zip files."""
