"""An index in several folders, shards, under one manifest: read, changed, looked after and put together as one."""
