"""Checks of the packages before a release."""
