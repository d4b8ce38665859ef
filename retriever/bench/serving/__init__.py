"""What HTTP costs, beside another server."""
