"""The legs that there are, a class in a file each; those of words and of sparse terms do without Java."""
