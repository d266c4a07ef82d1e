"""Batches of a split: from memory or from shards, in one order, augmented."""
