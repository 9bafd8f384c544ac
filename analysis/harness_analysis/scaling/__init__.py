"""Scaling tables: what runs of several configurations say about each other.

load (queries) -> facts -> study (pure: points, intervals, limits) -> rows, sentences, picture
"""
