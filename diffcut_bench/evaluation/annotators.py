"""Labels that are segments of several annotators (``matching=regions``): a prediction is set beside each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Int
from torch import Tensor

from diffcut_bench.evaluation.boundaries import count_boundaries
from diffcut_bench.evaluation.images import ScoredImage
from diffcut_bench.evaluation.matching import contingency_tables


@dataclass(frozen=True)
class Annotators:
    """The annotators of several images of one size.

    Attributes:
        labels: segment ids of as many annotators as the image of most has, −1 for void; of those that others lack all
            is void.
        numbers: of the annotators of each image.
        regions: the number after the greatest segment id.
    """

    labels: Int[Tensor, "batch annotators height width"]
    numbers: list[int]
    regions: int

    @classmethod
    def of(
        cls,
        on_host: Sequence[Int[Tensor, "annotators height width"]],
        on_device: Sequence[Int[Tensor, "annotators height width"]],
    ) -> "Annotators":
        """Of the segment ids of each image, −1 for void, twice: what is asked of their values is asked on the host."""
        regions = max(int(each.max()) + 1 for each in on_host)
        padded = torch.nn.utils.rnn.pad_sequence(list(on_device), batch_first=True, padding_value=-1)
        return cls(padded, [len(each) for each in on_host], max(regions, 1))

    def scored(self, prediction: Int[Tensor, "batch height width"]) -> list[list[ScoredImage]]:
        """Predictions against the annotators: for each image one `ScoredImage` an annotator."""
        labels = self.labels
        predicted = prediction[:, None].expand_as(labels)
        counted = contingency_tables(predicted.flatten(0, 1), labels.flatten(0, 1), self.regions)
        columns = max(table.shape[1] for table in counted)
        boundaries = count_boundaries(prediction, labels, self.regions, columns, with_bands=False)
        tables = iter(counted)
        found = []
        for image, of_labels, lines, number in zip(prediction, labels, boundaries, self.numbers, strict=True):
            own = list(zip(of_labels, islice(tables, len(of_labels)), lines, strict=True))[:number]
            found.append([ScoredImage(image, label, table, boundaries=near) for label, table, near in own])
        return found
