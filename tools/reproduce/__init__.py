"""Reproduction of the papers' tables: lists of runs, and the page made from them."""
