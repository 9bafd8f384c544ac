"""The page's sections: each turns numbers into blocks, and asks the database nothing."""
