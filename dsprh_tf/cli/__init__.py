"""The programs: flags and screens. What they do is in the library."""
