"""The drawn world of the demo and the tests: `draw.write_scenes`."""
