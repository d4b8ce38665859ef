"""From a corpus to an index folder: chunk, encode, write, commit."""
