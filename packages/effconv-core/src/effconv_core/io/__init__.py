"""Atomic files, untrusted JSON and terminal output: all file access goes through these modules."""
