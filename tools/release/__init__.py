"""What is asked of the packages before they are released."""
