"""An index in Qdrant: on a server, or in this process, with the same rankings as the folder that it was pushed from."""
