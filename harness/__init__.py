"""Where did every microsecond of every decode step go, on every rank?"""

__version__ = "0.1.0"
