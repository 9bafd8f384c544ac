"""The command line: a verb a file, imported only when it is called."""
