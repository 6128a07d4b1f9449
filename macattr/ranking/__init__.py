"""From images to a ranking of layers: the run, its parts on disk, and the table that results."""
