"""Everything that speaks to Lucene through pyjnius; `jvm` alone starts Java."""
