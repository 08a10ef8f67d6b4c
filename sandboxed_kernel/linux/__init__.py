"""Raw Linux; knows no policy. The only ctypes."""
