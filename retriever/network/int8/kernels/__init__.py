"""What is compiled: the steps of the int8 network, products of rows with packed matrices, and the layouts they read."""
