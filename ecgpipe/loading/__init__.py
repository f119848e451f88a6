"""From shards to batches: frames drawn at random upstream, whole recordings downstream."""
