"""The published benchmarks in miniature: tiny files in each original layout and encoding."""

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

SIZE = (6, 4)  # width, height


def picture(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def grey(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def values(*raw: int) -> np.ndarray:
    """A label of SIZE that holds the given raw values in its first row, the first of them everywhere else."""
    label = np.full(SIZE[::-1], raw[0])
    label.ravel()[: len(raw)] = raw
    return label


def write_voc(root: Path, label: np.ndarray, ids: tuple[str, ...] = ("2007_000061", "2007_000033")) -> None:
    top = root / "VOCdevkit" / "VOC2012"
    for seed, image_id in enumerate(ids):
        picture(top / "JPEGImages" / f"{image_id}.jpg", seed)
        palette = Image.new("P", label.shape[::-1])
        palette.putpalette([value for colour in range(256) for value in (colour, 255 - colour, 7)])
        palette.putdata(label.ravel().tolist())
        (top / "SegmentationClass").mkdir(parents=True, exist_ok=True)
        palette.save(top / "SegmentationClass" / f"{image_id}.png")
    lists = top / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(ids) + "\n")


def write_context(root: Path, label: np.ndarray) -> None:
    top = root / "VOCdevkit" / "VOC2010"
    for seed, image_id in enumerate(("2008_000002", "2010_000009")):
        picture(top / "JPEGImages" / f"{image_id}.jpg", seed)
        (root / "trainval").mkdir(exist_ok=True)
        scipy.io.savemat(root / "trainval" / f"{image_id}.mat", {"LabelMap": label.astype(np.uint16)})
    (top / "ImageSets" / "Main").mkdir(parents=True)
    (top / "ImageSets" / "Main" / "val.txt").write_text("2008_000002\n2010_000009\n")


def annotations(*maps: np.ndarray) -> dict[str, np.ndarray]:
    """What a ground truth file of BSDS500 holds: segments and boundaries of each annotator."""
    cells = np.empty((1, len(maps)), dtype=object)
    for index, segments in enumerate(maps):
        cells[0, index] = {"Segmentation": segments.astype(np.uint16), "Boundaries": np.zeros_like(segments, np.uint8)}
    return {"groundTruth": cells}


def write_bsds(root: Path, maps: dict[str, list[np.ndarray]], split: str = "test") -> Path:
    """BSDS500: pictures of noise, and segments of each one's annotators; returns its ``data`` folder."""
    data = root / "BSR" / "BSDS500" / "data"
    (data / "groundTruth" / split).mkdir(parents=True)
    for seed, (image_id, own) in enumerate(maps.items()):
        picture(data / "images" / split / f"{image_id}.jpg", seed, own[0].shape[::-1])
        scipy.io.savemat(data / "groundTruth" / split / f"{image_id}.mat", annotations(*own), do_compression=True)
    return data


def write_coco(root: Path, label: np.ndarray, ids: tuple[str, ...] = ("000000000139", "000000000724")) -> None:
    for seed, image_id in enumerate(ids):
        picture(root / "val2017" / f"{image_id}.jpg", seed)
        grey(root / "stuffthingmaps" / "val2017" / f"{image_id}.png", label)


def write_cityscapes(root: Path, label: np.ndarray) -> None:
    for seed, (city, frame) in enumerate((("frankfurt", "000000_000294"), ("lindau", "000001_000019"))):
        picture(root / "leftImg8bit" / "val" / city / f"{city}_{frame}_leftImg8bit.png", seed)
        grey(root / "gtFine" / "val" / city / f"{city}_{frame}_gtFine_labelIds.png", label)
        # What else lies there in the original.
        grey(root / "gtFine" / "val" / city / f"{city}_{frame}_gtFine_instanceIds.png", label)
        grey(root / "gtFine" / "val" / city / f"{city}_{frame}_gtFine_labelTrainIds.png", label * 0)


def write_ade20k(root: Path, label: np.ndarray) -> None:
    top = root / "ADEChallengeData2016"
    for number in (1, 2):
        picture(top / "images" / "validation" / f"ADE_val_{number:08d}.jpg", number)
        grey(top / "annotations" / "validation" / f"ADE_val_{number:08d}.png", label)


def archive(folder: Path, path: Path) -> None:
    """Pack the content of a folder as the suffix of ``path`` says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for file in sorted(folder.rglob("*")):
                packed.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as packed:
            for entry in sorted(folder.iterdir()):
                packed.add(entry, entry.name)
