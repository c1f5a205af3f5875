"""Arrays of M elements with C channels."""
