"""An index that is open for searching: its last commit, its legs and its encoder, whole or in shards."""
