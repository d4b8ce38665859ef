"""Data sets, judgements and run files: read, checked, written."""
