"""The search page: static files without a build step, and nothing from elsewhere."""
