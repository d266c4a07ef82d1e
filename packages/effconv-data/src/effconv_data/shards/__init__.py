"""WebDataset shards: their index, their samples, and what is known of them."""
