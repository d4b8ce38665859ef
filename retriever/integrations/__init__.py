"""Adapters to other people's interfaces, and what an encoder is exported as."""
