"""Postings of our own beside Lucene's: those of the sparse leg and those of BM25, in blocks that follow the rows."""
