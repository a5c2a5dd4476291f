"""Pieces of work, each on one thread: in order, errors let out, and nested without waiting."""

import threading

import pytest
import torch

from seedsbench.exact.blocks import map_blocks


def test_results_come_in_order_each_made_on_one_thread(threads):
    found = map_blocks(lambda item: (item, torch.get_num_threads()), range(7))
    assert torch.get_num_threads() == threads
    assert found == [(item, 1) for item in range(7)]


def test_work_that_does_the_same_inside_ends():
    done = []

    def nested():
        torch.set_num_threads(1)  # so that there is one worker, who would wait for himself
        done.append(map_blocks(lambda i: sum(map_blocks(lambda j: i * j, range(3))), range(9)))

    worker = threading.Thread(target=nested, daemon=True)
    worker.start()
    worker.join(timeout=30)
    assert done == [[3 * i for i in range(9)]]


def test_an_error_comes_out():
    with pytest.raises(ZeroDivisionError):
        map_blocks(lambda item: 1 / item, [1, 0])
