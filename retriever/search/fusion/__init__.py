"""Fusion: of the legs of one search, of whole runs, and the settings that an index was tuned to."""
