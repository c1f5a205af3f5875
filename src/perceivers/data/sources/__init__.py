"""From a path, hub id or object to the splits of a data set."""
