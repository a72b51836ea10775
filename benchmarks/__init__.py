"""Scripts behind every figure: each room answers one question.

`speed`: what tracing and asking cost; `loading`: what a model of real size takes; `scale`: does it hold when a store is large;
`peers`: what other tools do with the same model; `versions`: which Transformers are read right; `mutants`: would a test notice.
"""

import os

os.environ.setdefault("MOESCOPE_CACHE", "off")  # what is measured is computed
