"""What encoding and indexing cost: speed beside other systems, memory, where the time goes."""
