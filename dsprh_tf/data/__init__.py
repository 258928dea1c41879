"""Pairs of pictures and words: one module per source, all of which return a `PairDataset`."""
