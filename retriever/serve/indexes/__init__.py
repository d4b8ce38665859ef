"""The indexes of one server process: open ones, the threads that search and change them, and their pipelines."""
