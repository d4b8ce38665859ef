"""The addresses of the HTTP interface, by what they are about, and the short way of a plain search."""
