"""Target columns: infer their kind, index their classes, encode their values."""
