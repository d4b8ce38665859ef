"""The index folder: Lucene for text and impacts, rows and FAISS for vectors, one commit point."""
