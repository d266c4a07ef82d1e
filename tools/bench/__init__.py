"""Timings: sides in turns, a raw result for each, and the pages made of them."""
