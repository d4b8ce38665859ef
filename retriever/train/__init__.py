"""Training: data streams, losses and the loop that makes an encoder."""
