"""Pairs of a data set on their way to the pipeline: decoded as far as somebody looks, cropped, with features where they
are stored."""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from diffcut_bench.datasets import Pair, SegmentationDataset
from diffcut_bench.errors import UserError
from diffcut_bench.interruption import is_interrupted, process_context
from diffcut_bench.scoring.features import FeatureSource
from diffcut_bench.scoring.framing import Example, prepare_example
from diffcut_bench.store import Failure
from diffcut_bench.traces import Trace, is_debugging

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """An image of the data set, and what somebody wants of it besides its label.

    Attributes:
        index: in the data set.
        features: of the backbone.
        pixels: to be looked at, by whatever stage or observer.
        digest: of its file, for a store beside that of these features.
    """

    index: int
    features: bool = False
    pixels: bool = False
    digest: bool = False


@dataclass(frozen=True, kw_only=True)
class CodeFailure(Failure):
    """A pair whose reading ended in code of the user's, such as that of her data set: no fault of the data."""

    trace: Trace


class _Reader(torch.utils.data.Dataset[Example | Failure]):
    """Decodes and crops what is wanted; an unreadable pair becomes a `Failure` instead of ending the run."""

    def __init__(self, dataset: SegmentationDataset, wanted: Sequence[Wanted], features: FeatureSource) -> None:
        self.dataset, self.wanted = dataset, wanted
        # Without the network: a worker process gets a copy of all that is here.
        self.framing, self.stored = features.framing, [network.stored for network in features.networks]
        self.ids: list[str] = dataset.ids

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, position: int) -> Example | Failure:
        wanted, framing = self.wanted[position], self.framing
        index, id = wanted.index, self.ids[wanted.index]
        digest, features = "", tuple[Tensor | None, ...]()
        try:
            pair = self.dataset.pair(index)
            in_store = wanted.features and self.stored[0].store is not None
            if in_store or wanted.digest:
                digest = pair.digest()
            if in_store:
                features = tuple(each.of(digest, pair.image.size) for each in self.stored)
            # Where all that is wanted is there, the colours are not decoded.
            found = in_store and all(each is not None for each in features)
            seen = wanted.pixels or (wanted.features and not found)
            picture = pair.image.rgb() if seen else None
            example = prepare_example(index, id, picture, read_label(pair, framing.void), framing)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            trace = Trace.of(error)
            if trace is None or not trace.of_user or isinstance(error, OSError):
                if isinstance(error, (ValueError, OSError)):
                    return Failure(id, str(error), index)
                raise
            if is_debugging():
                raise
            return CodeFailure(id, trace.error, index, trace=trace)
        return replace(example, digest=digest, features=features)


def read_label(pair: Pair, void: str) -> NDArray[np.int64]:
    """`Pair.classes` as a protocol's ``void`` wants it: unannotated pixels as background, or left at −1.

    Raises:
        ValueError: as `Pair.classes` does.
    """
    label = pair.classes()
    if void == "background" and pair.dataset.background is not None:
        label[label < 0] = pair.dataset.background
    return label


def example_loader(
    dataset: SegmentationDataset,
    wanted: Sequence[Wanted],
    features: FeatureSource,
    *,
    batch_size: int,
    num_workers: int = 0,
) -> DataLoader[Any]:
    """Batches (lists) of `Example`, or `Failure` for a pair that can't be read, in the order that is asked for.

    Colours are decoded where pixels are wanted, or features that the store does not have: of any other picture the
    header is read, for its size, and damage behind it does not matter.

    Args:
        dataset: opened.
        wanted: images, and what of them.
        features: whose framing says what is seen and scored, and whose store gives the features that it has.
        batch_size: items a list.
        num_workers: processes that decode and crop; 0: this one.
    """
    return DataLoader(
        _Reader(dataset, wanted, features),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=list,
        multiprocessing_context=process_context() if num_workers else None,
    )


def _use_one_thread() -> None:
    """In the thread that reads: torch's operations start none of their own.

    A second pool beside the main thread's is one too many for OpenMP, which then lets the threads of both sleep after
    each operation: with two cores the cut took three times as long.
    """
    torch.get_num_threads()  # asked for once, or the first operation takes the main thread's number
    torch.set_num_threads(1)


def read_ahead(batches: Iterable[T]) -> Iterator[T]:
    """The batches; the next one is read in a thread while one is worked on.

    Raises:
        UserError: a process that reads died.
    """
    end = object()
    thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
    threads = torch.get_num_threads()
    try:
        thread.submit(_use_one_thread).result()
        torch.set_num_threads(threads)  # MKL's number is that of all threads
        # In the thread: begun in the main one, torch would raise a worker's death in the middle of whatever runs there.
        waiting = thread.submit(iter, batches).result()
        coming: Future[Any] = thread.submit(next, waiting, end)
        while (batch := coming.result()) is not end:
            coming = thread.submit(next, waiting, end)
            yield batch
    except RuntimeError as error:
        if re.match(r"DataLoader worker \(pid", str(error)) is None:
            raise
        raise UserError(
            f"a process that reads images died ({error}), often for want of memory",
            "num_workers",
            "run the same command with fewer, or with num_workers=0; what is done is kept",
        ) from error
    finally:
        thread.shutdown(wait=not is_interrupted())  # it may wait for a worker that is gone
