"""Pairs of a data set on their way to the pipeline: decoded, cropped, resized, with features where they are stored."""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.errors import UserError
from diffcut_bench.interruption import is_interrupted, process_context
from diffcut_bench.scoring.features import FeatureSource
from diffcut_bench.scoring.framing import Example, prepare_example
from diffcut_bench.store import Failure

T = TypeVar("T")


class _Reader(torch.utils.data.Dataset[Example | Failure]):
    """Decodes and resizes; an unreadable pair becomes a `Failure` instead of ending the run."""

    def __init__(
        self, dataset: SegmentationDataset, indices: Sequence[int], features: FeatureSource, keep_images: bool
    ) -> None:
        self.dataset, self.indices, self.keep_images = dataset, indices, keep_images
        # Without the network: a worker process gets a copy of all that is here.
        self.framing, self.stored = features.framing, features.stored
        self.ids: list[str] = dataset.records["id"][:]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Example | Failure:
        index = self.indices[position]
        try:
            picture, label = read_label(self.dataset, index, self.framing.void)
            digest = "" if self.stored.store is None else self.dataset.image_digest(index)
        except (ValueError, OSError) as error:
            return Failure(self.ids[index], str(error), index)
        example = replace(prepare_example(index, self.ids[index], picture, label, self.framing), digest=digest)
        features = self.stored.of(example)
        # Where the features are there, the image need not travel from a worker process.
        return replace(
            example, features=features, image=example.image if features is None or self.keep_images else None
        )


def read_label(dataset: SegmentationDataset, index: int, void: str) -> tuple[Image.Image, NDArray[np.int64]]:
    """Image and class map as a protocol's ``void`` wants it: unannotated pixels as background, or left at −1."""
    picture, label = dataset.read(index)
    if void == "background" and dataset.background is not None:
        label[label < 0] = dataset.background
    return picture, label


def example_loader(
    dataset: SegmentationDataset,
    indices: Sequence[int],
    features: FeatureSource,
    *,
    batch_size: int,
    num_workers: int = 0,
    pin_memory: bool = False,
    keep_images: bool = False,
) -> DataLoader[Any]:
    """Batches (lists) of `Example`, or `Failure` for a pair that can't be read, in the order of ``indices``.

    Args:
        dataset: opened.
        indices: of images in the data set.
        features: whose framing says what is seen and scored, and whose store gives the features that it has.
        batch_size: items a list.
        num_workers: processes that decode, crop and resize; 0: this one.
        pin_memory: give tensors in page-locked memory, for an accelerator.
        keep_images: give images also where their features are in the store.
    """
    return DataLoader(
        _Reader(dataset, indices, features, keep_images),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=list,
        pin_memory=pin_memory,
        multiprocessing_context=process_context() if num_workers else None,
    )


def read_ahead(batches: Iterable[T]) -> Iterator[T]:
    """The batches; the next one is read in a thread while one is worked on.

    Raises:
        UserError: a process that reads died.
    """
    end = object()
    thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
    try:
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
