"""Stores: the Zarr archive and the tar shards, their manifest, and how to look into them."""
