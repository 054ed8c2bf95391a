"""Everything that needs torch: training, scoring, sampling, and the worker process."""

import logging

# On CPUs with AVX512-BF16, bitsandbytes warns at import that an optional inference kernel is missing; it is not needed.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
