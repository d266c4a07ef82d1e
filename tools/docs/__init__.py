"""What holds the documents to the raw results, and what the site needs."""
