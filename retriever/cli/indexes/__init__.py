"""Commands that make an index, change it, look after it or copy it."""
