"""An index in Qdrant: on a server, or in this process, with the same rankings as the folder that it was pushed from.

`retriever.index.places` comes here for addresses that begin with qdrant.
"""

from retriever.qdrant.place import describe, open_reader, open_writer

__all__ = ["describe", "open_reader", "open_writer"]
