"""What is asked before each call that could reach further. Trusted, a process of its own."""
