"""What an accelerator would be asked to do, stage by stage: counted on the pretended one.

Counts do not depend on the machine's load or speed. `pretended` says what is counted and by which model it takes time.
Nothing here prints or writes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, get_args

from torch import Tensor

from benchmarks.cut import mean_segments, share_equal
from benchmarks.launches import Counts
from benchmarks.material import Material, tiled
from benchmarks.pretended import DEVICE, Pretended
from diffcut_bench.config import load_config
from diffcut_bench.evaluation import contingency_tables, count_matches, merge_backgrounds
from diffcut_bench.ncut import NCutTree, affinity, ncut_tree, recursive_ncut
from diffcut_bench.ncut.settings import LabelCodes
from diffcut_bench.refinement import assign_concepts, refine_labels
from diffcut_bench.scoring.passes import run_cell

_TAUS = 20
_PLACES = 8  # lines that a row names, of each kind


@dataclass(frozen=True)
class Counted:
    """One stage on one batch.

    Attributes:
        stage: its name; ``cut`` is `recursive_ncut` whole, affinity and labels included.
        images: of the batch.
        alpha: of the affinity; None where there is none.
        segments: mean an image; None where nothing is segmented.
        kernels: launches, of the batch.
        crossings: waits of the host for the device, of the batch; blocking uploads are among them.
        uploads, blocking_uploads: copies of tensors to the device, and those that the host waits for.
        uploaded_bytes, downloaded_bytes: of the batch, between host and device.
        bytes: read and written by kernels, of the batch.
        flops: of products of matrices and convolutions, of the batch.
        modelled_s: seconds of the batch by the model.
        equal: share of images whose result is that of the CPU (partitions: up to renaming); None where not compared.
        places: for kernels, crossings and uploads the lines of the package with most of them.
    """

    stage: str
    images: int
    alpha: float | None
    segments: float | None
    kernels: int
    crossings: int
    uploads: int
    blocking_uploads: int
    uploaded_bytes: int
    downloaded_bytes: int
    bytes: int
    flops: int
    modelled_s: float
    equal: float | None = None
    places: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        stage: str,
        images: int,
        counts: Counts,
        alpha: float | None = None,
        segments: float | None = None,
        equal: float | None = None,
    ) -> "Counted":
        """The row of what was counted."""
        by_line = {"kernels": counts.kernels, "crossings": counts.crossings, "uploads": counts.uploads}
        return cls(
            stage=stage,
            images=images,
            alpha=alpha,
            segments=segments,
            **{name: lines.total() for name, lines in by_line.items()},
            blocking_uploads=counts.blocking_uploads.total(),
            uploaded_bytes=counts.uploaded_bytes,
            downloaded_bytes=counts.downloaded_bytes,
            bytes=counts.bytes,
            flops=counts.flops,
            modelled_s=counts.modelled_s,
            equal=equal,
            places={name: dict(lines.most_common(_PLACES)) for name, lines in by_line.items()},
        )


def count_stages(
    material: Material, images: int, alpha: float, tau: float, label_codes: LabelCodes = "exact"
) -> Iterator[Counted]:
    """Count every stage after the backbone on features of one batch.

    Args:
        material: on the CPU.
        images: at a time, copies where there are not enough.
        alpha, tau, label_codes: of the cut.

    Yields:
        A row for each stage, when it is done.
    """
    different = material.nodes[:images]
    host_partition = tiled(recursive_ncut(different, tau, alpha, label_codes=label_codes), images)
    material = material.repeated(images)
    labels, classes, background = material.labels, material.num_classes, material.background
    size = (labels.shape[1], labels.shape[2])
    segments = mean_segments(host_partition)
    host_grid = host_partition.unflatten(1, material.features.shape[2:])
    taus = [tau * (step + 1) / _TAUS for step in range(_TAUS)]
    with Pretended() as accelerator:
        maps, nodes, photos, labels, grid = (
            each.to(DEVICE) for each in (material.features, material.nodes, material.photos, labels, host_grid)
        )

        def counted(stage: str, work: Callable[[], Any]) -> tuple[Counted, Any]:
            accelerator.taken()
            result = work()
            return Counted.of(stage, images, accelerator.taken(), alpha, segments), result

        yield counted("affinity", lambda: affinity(nodes, alpha))[0]
        accelerator.taken()
        found = recursive_ncut(nodes, tau, alpha, label_codes=label_codes)
        counts = accelerator.taken()
        equal = share_equal(found.cpu(), host_partition)
        yield Counted.of("cut", images, counts, alpha, segments, equal)
        tree = ncut_tree(nodes, tau, alpha)
        for codes in get_args(LabelCodes):
            yield counted(f"{_TAUS} taus, {codes} codes", partial(_read, tree, taus, codes))[0]
        del tree
        row, prediction = counted("concepts", lambda: assign_concepts(maps, grid, size))
        yield row
        merged: Tensor = prediction
        if background is not None:
            row, merged = counted(
                "background rule",
                lambda: merge_backgrounds(prediction, labels, classes, background, material.rule),
            )
            yield row
        yield counted("matching", lambda: [count_matches(t) for t in contingency_tables(merged, labels, classes)])[0]
        yield counted("pamr", lambda: refine_labels(photos, prediction))[0]


def _read(tree: NCutTree, taus: Sequence[float], codes: LabelCodes) -> list[Tensor]:
    return [tree.labels(tau, codes) for tau in taus]


def count_run(overrides: Sequence[str], images: int) -> Iterator[Counted]:
    """Count the whole program on images of a data set, all in one batch: with an empty feature store, with a full one.

    Args:
        overrides: of the run; its data set has so many images, or more.
        images: of the batch.

    Yields:
        Both rows. The upload of the network's weights is part of the first.
    """
    with TemporaryDirectory() as folder:
        own = [f"output_dir={folder}", f"device={DEVICE.type}", f"limit={images}", f"batch_size={images}"]
        config = load_config([*overrides, *own, "features=store", "visualise=0", "if_exists=overwrite"])
        for features in ("computed", "stored"):
            with Pretended() as accelerator:
                run_cell(config)
            yield Counted.of(f"end to end, features {features}", images, accelerator.counts)
