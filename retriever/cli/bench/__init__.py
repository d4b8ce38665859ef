"""Commands that measure speed, size and ways to rank: bench and those below it."""
