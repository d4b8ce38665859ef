"""What the writer of an index folder puts together: batches, live rows, the FAISS file, and what is left over."""
