"""A row in a few words, for the log."""

import pytest

from seedsbench.bench.rows.columns import result_text


@pytest.mark.parametrize("missing", [{}, {"seconds_sampling": None, "images_per_second": 3.0}])
def test_a_row_that_says_no_times_can_be_told(missing):
    assert result_text({"status": "done", "fid": 1.0, "nfe": 6} | missing) == "FID 1.000, NFE 6"
