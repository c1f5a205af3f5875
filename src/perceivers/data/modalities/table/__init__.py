"""Numbers and categories of a table's row."""
