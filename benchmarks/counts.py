"""What an accelerator would be asked to do, stage by stage: counted on the pretended one.

Counts do not depend on the machine's load or speed. `pretended` says what is counted and by which model it takes time.
Nothing here prints or writes.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.cut import mean_segments, share_equal
from benchmarks.launches import Counts
from benchmarks.material import Material, tiled
from benchmarks.pretended import DEVICE, Pretended
from diffcut_bench.config import load_config
from diffcut_bench.evaluation import contingency_tables, count_matches, merge_backgrounds
from diffcut_bench.ncut import affinity, ncut_tree, recursive_ncut
from diffcut_bench.refinement import assign_concepts, refine_labels
from diffcut_bench.scoring.passes import run_cell

STAGES = ("cut", "affinity", "taus", "taus_float32", "concepts", "background", "matching", "pamr")
_TAUS = 20
_PLACES = 8  # lines that a row names, of each kind


@dataclass(frozen=True)
class Counted:
    """One stage on one batch.

    Attributes:
        stage: of `STAGES`: ``cut`` is `recursive_ncut` whole, affinity and labels included; ``taus`` are the labels of
            20 taus of one tree, then of the same tree with ``float32`` codes. Or ``run, features …``: a whole run.
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
    material: Material, images: int, alpha: float, tau: float, stages: Collection[str] = STAGES
) -> Iterator[Counted]:
    """Count stages after the backbone on features of one batch.

    Args:
        material: on the CPU.
        images: at a time, copies where there are not enough.
        alpha, tau: of the cut.
        stages: of `STAGES`.

    Yields:
        A row for each stage, when it is done; none for the background rule where there is no background.
    """
    partition = tiled(recursive_ncut(material.nodes[:images], tau, alpha), images)  # the CPU's
    segments = mean_segments(partition)
    material = material.repeated(images)
    classes, background, size = material.num_classes, material.background, material.labels.shape[1:]
    given = (material.features, material.nodes, material.photos, material.labels)
    taus = [tau * (step + 1) / _TAUS for step in range(_TAUS)]
    with Pretended() as accelerator:
        maps, nodes, photos, labels = (each.to(DEVICE) for each in given)
        grid = partition.to(DEVICE).unflatten(1, maps.shape[2:])
        prediction = assign_concepts(maps, grid, (size[0], size[1]))
        trees = [ncut_tree(nodes, tau, alpha)] if {"taus", "taus_float32"} & set(stages) else []
        works: dict[str, Callable[[], Any]] = {
            "cut": lambda: recursive_ncut(nodes, tau, alpha),
            "affinity": lambda: affinity(nodes, alpha),
            "taus": lambda: [trees[0].labels(each, "exact") for each in taus],
            "taus_float32": lambda: [trees[0].labels(each, "float32") for each in taus],
            "concepts": lambda: assign_concepts(maps, grid, (size[0], size[1])),
            "background": lambda: merge_backgrounds(prediction, labels, classes, background or 0, material.rule),
            "matching": lambda: [count_matches(table) for table in contingency_tables(prediction, labels, classes)],
            "pamr": lambda: refine_labels(photos, prediction),
        }
        for stage, work in works.items():
            if stage in stages and not (stage == "background" and background is None):
                accelerator.taken()
                found = work()
                counts = accelerator.taken()
                equal = share_equal(found.cpu(), partition) if stage == "cut" else None
                yield Counted.of(stage, images, counts, alpha, segments, equal)


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
        own += ["features=store", "visualise=0", "reference=none", "if_exists=overwrite"]
        config = load_config([*overrides, *own])
        for features in ("computed", "stored"):
            with Pretended() as accelerator:
                run_cell(config)
            yield Counted.of(f"run, features {features}", images, accelerator.counts)
