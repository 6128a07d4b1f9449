"""Images on disk and training crops: data sets, their layouts, checks, and picture files."""
