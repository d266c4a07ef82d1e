"""The papers' tables, measured: lists of runs, a folder each, and the page made of them."""
