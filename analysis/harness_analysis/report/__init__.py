"""The HTML report: one self-contained page out of one database, and a picture of its main point.

numbers (queries)  ->  sections (blocks: tiles, tables, figures)  ->  page (template)
"""

from harness_analysis.report.page import write_report
from harness_analysis.report.picture import write_picture

__all__ = ["write_picture", "write_report"]
