"""How fast search is at size, beside other engines."""
