"""The tests of tests/engine/forward/test_families.py, for the families that are left out there."""

import pytest
import tiny
from packed_families import (  # noqa: F401 (pytest runs what is imported)
    small_blocks,
    test_checkpointing_changes_no_bit,
    test_hybrid_models_are_refused_and_still_scored_right,
    test_isolation_to_the_last_bit,
    test_packed_rows_equal_the_oracle_and_one_plain_pass_per_answer,
)


@pytest.fixture(params=[family for family in tiny.FAMILIES if family not in tiny.MECHANISMS])
def family(request):
    return request.param


@pytest.fixture(params=[hybrid for hybrid in tiny.HYBRIDS if hybrid != "lfm2"])
def hybrid(request):
    return request.param
