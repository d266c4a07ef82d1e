"""Commands that train networks whose sizes are learned in other ways."""
