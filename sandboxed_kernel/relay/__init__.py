"""What Jupyter may say to the kernel, and back. Trusted, the launcher's process."""
