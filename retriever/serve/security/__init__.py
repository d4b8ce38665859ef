"""What stands before the routes: who may ask for what, by which name, how much, and for how long."""
