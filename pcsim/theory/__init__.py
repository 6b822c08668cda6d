"""The theory lab: what arXiv 2305.13562 proves of inference learning, checked in float64.

```python
from pcsim.theory import draw_figure1, figure1

result = figure1(proximal_step=1.0)
draw_figure1(result).savefig("figure1.png")
```

docs/theory.md has the results. Everything here is for dense networks in float64; what is compared with the
proximal update takes one sample at a time.
"""

from pcsim.theory.backprop_limit import check_backprop_limit
from pcsim.theory.distances import measure_distances
from pcsim.theory.figure1 import Curve, Figure1, digits_cases, figure1
from pcsim.theory.optimum import over_activities, over_weights
from pcsim.theory.pictures import (
    draw_backprop_limit,
    draw_distances,
    draw_figure1,
    draw_theorem1,
    draw_theorem2,
)
from pcsim.theory.problem import Problem
from pcsim.theory.theorem1 import check_theorem1
from pcsim.theory.theorem2 import check_theorem2, newton_form

__all__ = [
    "Curve",
    "Figure1",
    "Problem",
    "check_backprop_limit",
    "check_theorem1",
    "check_theorem2",
    "digits_cases",
    "draw_backprop_limit",
    "draw_distances",
    "draw_figure1",
    "draw_theorem1",
    "draw_theorem2",
    "figure1",
    "measure_distances",
    "newton_form",
    "over_activities",
    "over_weights",
]
