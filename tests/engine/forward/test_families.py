"""What a user would lose: answers that look at each other, in a model of a kind that nobody tried.

One family for each mechanism: full attention, a sliding window, soft-capping, a mixture of experts, a hybrid.
tests/full holds the others.
"""

import pytest
import tiny
from packed_families import (  # noqa: F401 (pytest runs what is imported)
    small_blocks,
    test_checkpointing_changes_no_bit,
    test_hybrid_models_are_refused_and_still_scored_right,
    test_isolation_to_the_last_bit,
    test_packed_rows_equal_the_oracle_and_one_plain_pass_per_answer,
)


@pytest.fixture(params=tiny.MECHANISMS)
def family(request):
    return request.param


@pytest.fixture(params=["lfm2"])
def hybrid(request):
    return request.param
