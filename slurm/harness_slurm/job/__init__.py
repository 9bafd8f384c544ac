"""A job: its script, what is asked of the controller, and the marks it leaves."""
