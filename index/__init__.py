"""The index folder: Lucene for text and impacts, rows and FAISS for vectors, one commit point."""

from retriever.index.reader import FolderReader
from retriever.index.settings import IndexSettings
from retriever.index.writer import FolderWriter

__all__ = ["FolderReader", "FolderWriter", "IndexSettings"]
