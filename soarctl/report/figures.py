"""A chart with what stands around it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from soarctl.report.charts import Series


@dataclass(frozen=True)
class Figure:
    """A chart with its title, what it shows, and the series of its legend."""

    title: str
    said: str
    chart: Markup
    series: Sequence[Series] = ()
    wide: bool = False
    """It has a row of the page to itself."""
