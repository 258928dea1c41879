"""Pairs of images and texts: one module per source, all of which return a `PairDataset`."""
