"""Running a network along a path: hooks, a first look, memory, and the sweep that feeds the sums."""
