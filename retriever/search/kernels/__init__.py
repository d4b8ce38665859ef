"""What searches run compiled: the postings of both kinds of terms, and the reading of stored documents."""
