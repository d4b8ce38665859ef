"""BEIR-style evaluation: data sets, runs, measures."""
