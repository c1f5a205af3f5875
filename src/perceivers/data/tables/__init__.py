"""Tables: rows and named columns, and which columns are inputs and targets."""
