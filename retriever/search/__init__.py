"""From a query to hits: legs, modes, fusion, and the `Retriever` that puts them together."""
