"""How a run ended, as far as its folder and the machine tell before there is a database."""
