"""Pieces of work one after the other, beside the caller's own where that gains something.

On a GPU the features of a batch are computed while the next one is drawn. Drawing waits for the device at
the end of a batch (adaptive solvers in every trial), and features come in small blocks that are read back:
either alone leaves gaps that the other can fill.

torch's current stream and device, and its modes of gradients and inference, are each thread's own; its flags
of precision are not (see `seedsbench.metrics.extraction.FLAGS`).
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch


class Beside:
    """Does what it is handed in order, one piece at a time; at its end as a context nothing runs any more.

    threaded: in one thread of its own, while the caller goes on; else at once. stream: of CUDA, for all that
    thread asks of the device; None where there is none.
    """

    def __init__(self, *, threaded: bool, stream: torch.cuda.Stream | None = None) -> None:
        # A new thread's current device is the first GPU: it would return to it from each use of the stream.
        own = None if stream is None else partial(torch.cuda.set_device, stream.device)
        self._pool = ThreadPoolExecutor(1, "seedsbench-beside", own) if threaded else None
        self._stream = stream
        self._piece: Future[None] | None = None

    def hand_over(self, work: Callable[[], None]) -> None:
        """Have it done, once the piece before is. Raises what that one raised: this one is then not begun.

        It may use all that the caller has asked of the device, finished or not. So at most one piece is under
        way and one in the making, whatever their number.
        """
        if self._pool is None:
            work()
            return
        self.wait()
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        self._piece = self._pool.submit(self._do, work)

    def wait(self) -> None:
        """Return when all is done, on the device too. Raises what the last piece raised, once."""
        piece, self._piece = self._piece, None
        if piece is not None:
            piece.result()

    def _do(self, work: Callable[[], None]) -> None:
        if self._stream is None:
            work()
            return
        with torch.cuda.stream(self._stream):
            try:
                work()
            finally:
                # The caller uses the results in another stream. And `work` holds the tensors that came from
                # there: let go any sooner, their memory would be given to that stream while still read.
                self._stream.synchronize()

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def beside_drawing(device: str, features: str) -> Beside:
    """For the scoring of samples: beside their drawing where both run on a GPU, else in turn with it.

    device: where samples are drawn; features: where their extractor says that it runs.
    """
    if device.startswith("cuda") and features.startswith("cuda"):
        return Beside(threaded=True, stream=torch.cuda.Stream(device))
    return Beside(threaded=False)
