"""What runs inside a model: trunk, experts, heads, and how a model is made, saved and read."""
