"""What a hit shows of its document: which passages, which fields, and the words that the query found."""
