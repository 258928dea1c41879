"""Search among codes: `hamming.HammingIndex` on one machine, and what surrounds it."""
