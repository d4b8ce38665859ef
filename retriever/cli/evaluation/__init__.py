"""Commands that measure effectiveness: evaluate, compare, tune, diagnose, scale, reproduce."""
