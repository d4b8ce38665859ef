"""What an encoder folder says without its network: tokens, terms, their learned values, which texts can be read."""
