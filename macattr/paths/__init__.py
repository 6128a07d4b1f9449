"""The mathematics of a path: inputs, nodes, sums, objectives and presets; without networks, files or random numbers."""
