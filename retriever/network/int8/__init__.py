"""The network in 8-bit integers: matrices, attention and the compiled steps between them."""
