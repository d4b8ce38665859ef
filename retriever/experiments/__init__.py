"""Systems compared on data sets: search each leg once, fuse, measure, tune, diagnose, reproduce."""
