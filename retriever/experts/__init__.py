"""What the experts of an encoder do: routing statistics and their report."""
