"""Reading exactly but cheaply: what a cross-attend does with elements that are kept in parts."""
