"""The command line: one file for each command, each of which imports its engine only when it runs."""
