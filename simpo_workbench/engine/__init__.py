"""Everything that needs torch: training, scoring, sampling, and the worker process."""

import logging

# On CPUs with AVX512-BF16, bitsandbytes warns at import that an optional inference kernel is missing; it is not needed.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# It warns in every layer and pass of an 8-bit model that inputs become fp16, which is how 8-bit products work.
logging.getLogger("bitsandbytes.autograd._functions").addFilter(
    lambda record: "inputs will be cast" not in str(record.msg)
)
