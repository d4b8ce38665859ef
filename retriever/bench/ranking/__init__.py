"""What ways to rank are worth on judged queries, and what they take."""
