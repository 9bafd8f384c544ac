"""`harness sweep`: a grid of specifications, run one after the other into one folder.

plan (pure)  ->  folder (what is done already)  ->  estimate (GPU-hours)  ->  execute
"""
