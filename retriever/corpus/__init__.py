"""Corpora and queries in every format that is read, as streams of records."""
