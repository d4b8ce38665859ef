"""The command line: a module for each group of commands, which parses, makes one call and prints."""
