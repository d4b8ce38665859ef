"""Commands that search, and that let others search: search, facets, fuse, serve, mcp."""
