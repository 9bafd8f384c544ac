"""Launchers: how ranks are started, watched and ended."""
