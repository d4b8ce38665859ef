"""More than one machine: shards are built and searched on a Ray cluster."""
