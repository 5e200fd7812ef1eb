"""Tables and figures of packages that need not be installed: pandas and matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsee.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


def data_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> DataFrame:
    """Return the rows as a DataFrame, indexed by the first column.

    Raises:
        UserError: pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise UserError("to_pandas needs pandas, which is not installed: pip install pandas.") from error
    return DataFrame(rows, columns=list(columns)).set_index(columns[0])


def new_figure(height: float) -> Figure:
    """Return an empty figure of a height in inches.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('plot needs matplotlib: pip install "unsee[plots]".') from error
    return Figure(figsize=(6, height), layout="constrained")
