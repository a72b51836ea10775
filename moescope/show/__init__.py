"""The dashboard's pictures for notebooks and files: `moescope.show.tokens(store, sequence=3, layer=2)`.

Each gives a `Picture`: the last value of a notebook's cell shows itself (hover, a slider of layers, a click for a route, no
server), `.save("x.html")` and .png, .svg, .pdf write it, `.frame` has its numbers and `.sql` the query behind them. No torch
and no Streamlit are loaded. `live(False)` gives notebooks still pictures only, as a repository wants them.
"""

from ..pictures.picture import Picture, live
from .experts import experts
from .flow import flow
from .load import load
from .route import route
from .tokens import tokens

__all__ = ["Picture", "experts", "flow", "live", "load", "route", "tokens"]
