"""The report of an evaluation: results as records, and one HTML page without scripts."""
