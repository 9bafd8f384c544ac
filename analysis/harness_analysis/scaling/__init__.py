"""Scaling tables: what runs of several configurations say about each other.

load (queries) -> facts -> study (pure: makes the points of model, with intervals and limits)
-> rows, sentences, picture
"""
