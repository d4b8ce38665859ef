"""Commands that make encoders, their training data and what goes with them, look into them and hand them on."""
