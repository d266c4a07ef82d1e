"""Run folders: locked, written, read, and shown as they grow."""
