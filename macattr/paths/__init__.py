"""The mathematics of a path: inputs, nodes, sums, objectives and presets; nothing here knows a network."""
