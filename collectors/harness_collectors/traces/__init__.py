"""What traces of device work have in common, whoever recorded them: columns, classes, keys."""
