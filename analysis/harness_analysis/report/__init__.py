"""The HTML report: one self-contained page out of one database.

numbers (queries)  ->  sections (blocks: tiles, tables, figures)  ->  page (template)
"""

from harness_analysis.report.page import write_report

__all__ = ["write_report"]
