"""What smaller vectors and terms cost in quality, and save."""
