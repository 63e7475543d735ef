"""Pages beside the live one. Each module here adds routes; see `semagent.console.app.Page`."""

from semagent.console.app import Page
from semagent.console.pages import metrics

PAGES: tuple[Page, ...] = (metrics.routes,)
