"""A sweep as one HTML file that needs nothing else: what was asked, what was found in words, the table, the figures,
and where every number comes from. A pure function of the store's files: the same records give the same bytes.

    write_page(summary)      results/<sweep>/report.html
    write_index(store)       results/index.html, over all sweeps
"""

from deit_ablate.report.html.index import write_index
from deit_ablate.report.html.page import page, write_page

__all__ = ["page", "write_index", "write_page"]
