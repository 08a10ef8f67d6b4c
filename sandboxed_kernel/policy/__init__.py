"""What is allowed. Pure."""
