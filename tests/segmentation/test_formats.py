"""Each format is read by a library of its own, and gives the labels back."""

import importlib
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.ncut import ncut_tree
from diffcut_bench.segmentation import PictureSegmenter, Segmentation, SegmentRecord
from diffcut_bench.segmentation.formats import (
    FORMATS,
    Segmented,
    chosen_formats,
    read_georeference,
    segment_polygons,
    write_content,
)
from diffcut_bench.segmentation.formats.tree import regions_of_labels
from diffcut_bench.segmentation.hierarchy import Hierarchy

SMALL = "protocol.image_size=128"


WKT_1 = (
    'PROJCS["WGS 84 / UTM zone 33N",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,'
    'AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433],'
    'AUTHORITY["EPSG","4326"]],PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],'
    'PARAMETER["central_meridian",15],PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],'
    'PARAMETER["false_northing",0],UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]%s]'
)


def library(name):
    return pytest.importorskip(name, reason=f"reads a format back; pip install {name.partition('.')[0]}")


@pytest.fixture
def labels():
    """Segments with holes, islands in holes, parts that touch at corners, and one pixel alone."""
    labels = np.zeros((24, 32), dtype=np.int64)
    labels[2:20, 3:25] = 1
    labels[5:15, 6:18] = 0
    labels[8:11, 9:13] = 2
    labels[9, 10] = 1
    labels[20:24, 25:32] = 3
    labels[0, 0] = 4
    labels[21, 2], labels[22, 3], labels[21, 4] = 2, 2, 2
    return labels


@pytest.fixture
def segmented(labels):
    image = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    names = (("cat", 0.9), ("<sofa> & co", 0.5), ("cat", 0.25), ("plant", 1.0), ("plant", 0.75))
    return Segmented("a photo.png", Segmentation(image, labels, names))


def written(name, segmented, folder):
    for needed in FORMATS[name].libraries:
        library(needed)
    path = folder / f"a photo{FORMATS[name].suffix}"
    write_content(path, FORMATS[name].encode(segmented))
    return path


def painted(outlines, shape):
    """Labels [height, width] by outlines, each painted over those before it; −1 where there is none."""
    shapely = library("shapely")
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    labels = np.full(shape, -1)
    for segment, outline in outlines:
        labels[shapely.contains_xy(shapely.polygons(outline), x, y)] = segment
    return labels


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(0, 1000), st.sampled_from([0, 0.7, 3]))
def test_polygons_cover_the_picture_without_gaps(height, width, count, seed, simplify):
    shapely = library("shapely")
    found = np.random.default_rng(seed).integers(0, count, (height, width))
    labels = np.unique(found, return_inverse=True)[1].reshape(height, width)
    polygons = segment_polygons(labels, simplify)
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)  # no overlaps; where borders meet, both sides have the point
    assert shapely.union_all(polygons).equals(shapely.box(0, 0, width, height))
    if not simplify:
        y, x = np.mgrid[:height, :width] + 0.5
        inside = np.stack([shapely.contains_xy(polygon, x, y) for polygon in polygons])
        assert np.array_equal(inside, labels == np.arange(len(polygons))[:, None, None])


def test_simplified_borders_have_fewer_points_and_stay_where_they_were():
    shapely = library("shapely")
    y, x = np.mgrid[:120, :160]
    labels = ((x - 80) ** 2 + (y - 60) ** 2 < 40**2).astype(int)
    exact, smooth = segment_polygons(labels), segment_polygons(labels, 1.5)
    assert shapely.get_num_coordinates(smooth[1]) < shapely.get_num_coordinates(exact[1]) / 3
    assert smooth[1].area == pytest.approx(exact[1].area, rel=0.02)


def test_coco_loads_with_pycocotools(segmented, labels, tmp_path):
    coco = library("pycocotools.coco").COCO(written("coco", segmented, tmp_path))
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["file_name"], image["height"], image["width"]) == ("a photo.png", *labels.shape)
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
    assert np.array_equal(sum(coco.annToMask(each) * (each["id"] - 1) for each in annotations), labels)
    for each in annotations:
        left, top, width, height = each["bbox"]
        mask = coco.annToMask(each)
        assert mask[top : top + height, left : left + width].sum() == mask.sum() == each["area"]
    categories = coco.loadCats([each["category_id"] for each in annotations])
    assert [each["name"] for each in categories] == [name for name, _ in segmented.result.names]


def test_geojson_in_pixels_loads_with_shapely(segmented, labels, tmp_path):
    shapely = library("shapely")
    text = written("geojson", segmented, tmp_path).read_text()
    polygons = shapely.get_parts(shapely.from_geojson(text))
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]] + 0.5
    assert [np.array_equal(shapely.contains_xy(p, x, y), labels == i) for i, p in enumerate(polygons)] == [True] * 5
    read = json.loads(text)
    assert "crs" not in read
    assert [each["properties"]["name"] for each in read["features"]] == [n for n, _ in segmented.result.names]


TRANSFORMS = [(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0), (1.0, 0.5, 300.0, 0.25, -2.0, 70.0)]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=["north up", "turned"])
@pytest.mark.parametrize("point", [False, True], ids=["area", "point"])
@pytest.mark.parametrize("epsg", [32633, 4326])
def test_geojson_of_a_geotiff_is_where_rasterio_says(segmented, labels, tmp_path, transform, point, epsg):
    rasterio, features = library("rasterio"), library("rasterio.features")
    path = tmp_path / "a.tif"
    height, width = labels.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "crs": epsg}
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(*transform)) as file:
        file.write(segmented.result.image.transpose(2, 0, 1))
        if point:
            file.update_tags(AREA_OR_POINT="Point")
    georeference = read_georeference(path)
    assert georeference.epsg == epsg
    on_map = Segmented("a.tif", segmented.result, georeference=georeference)
    read = json.loads(written("geojson", on_map, tmp_path).read_text())
    with rasterio.open(path) as file:
        assert np.allclose(georeference.matrix.ravel(), tuple(file.transform)[:6], rtol=1e-12)
        shapes = [(each["geometry"], each["id"]) for each in read["features"]]
        again = features.rasterize(shapes, labels.shape, fill=99, transform=file.transform, dtype="uint8")
    assert np.array_equal(again, labels)
    assert read["crs"]["properties"]["name"] == f"urn:ogc:def:crs:EPSG::{epsg}"


@pytest.mark.parametrize("name", ["a.pgw", "a.pngw", "a.wld", "a.PGW"])
def test_a_world_file_is_read_as_rasterio_reads_it(segmented, tmp_path, name):
    Image.fromarray(segmented.result.image).save(tmp_path / "a.png")
    (tmp_path / name).write_text("2.0\n0.25\n0.5\n-2.0\n1001.0\n4999.0\n")
    georeference = read_georeference(tmp_path / "a.png")
    assert georeference.epsg is None
    assert georeference(np.array([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5]])).tolist() == [
        [1001, 4999],
        [1003, 4999.25],
        [1001.5, 4997],
    ]
    if name == "a.pgw":
        with library("rasterio").open(tmp_path / "a.png") as file:
            assert np.allclose(georeference.matrix.ravel(), tuple(file.transform)[:6])


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("authority", [',AUTHORITY["EPSG","32633"]', ""])
def test_a_prj_beside_a_world_file_names_the_reference_system(segmented, tmp_path, monkeypatch, installed, authority):
    if installed:
        library("rasterio")
    else:
        plain = importlib.import_module

        def without(name):
            if name.partition(".")[0] in ("pyproj", "rasterio"):
                raise ImportError
            return plain(name)

        monkeypatch.setattr(importlib, "import_module", without)
    Image.fromarray(segmented.result.image).save(tmp_path / "a.png")
    (tmp_path / "a.prj").write_text(WKT_1 % authority)
    assert read_georeference(tmp_path / "a.png") is None, "a reference system without a place"
    (tmp_path / "a.pgw").write_text("2 0 0 -2 500001 4999999")
    wanted = 32633 if installed or authority else None  # the libraries know it by its parameters
    assert read_georeference(tmp_path / "a.png").epsg == wanted
    (tmp_path / "a.prj").write_text("no WKT")
    assert read_georeference(tmp_path / "a.png").epsg is None


@pytest.mark.parametrize("text", ["", "1 2 3", "1 0 0 x 0 0", "1 0 0 nan 0 0", "1 0 0 0 5 5", "\0\0"])
def test_a_damaged_world_file_is_a_user_error(segmented, tmp_path, text):
    Image.fromarray(segmented.result.image).save(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_text(text)
    with pytest.raises(UserError) as caught:
        read_georeference(tmp_path / "a.png")
    assert caught.value.where == str(tmp_path / "a.pgw")


def test_a_picture_that_is_stored_turned_is_not_put_on_the_map(segmented, tmp_path):
    picture = Image.fromarray(segmented.result.image)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.jgw").write_text("1 0 0 -1 0 0")
    with pytest.raises(UserError, match="stored turned"):
        read_georeference(tmp_path / "a.jpg")


def test_a_picture_without_a_place_has_no_georeference(segmented, tmp_path):
    for name in ("a.png", "a.tif"):
        Image.fromarray(segmented.result.image).save(tmp_path / name)
        assert read_georeference(tmp_path / name) is None


def test_labelme_opens_its_file(segmented, labels, tmp_path):
    path = written("labelme", segmented, tmp_path)
    shapes = json.loads(path.read_text())["shapes"]
    outlines = [(each["group_id"], each["points"]) for each in shapes]
    assert np.array_equal(painted(outlines, labels.shape), labels)
    read = library("labelme._label_file").LabelFile(str(path))  # of labelme 6
    assert [each["label"] for each in read.shapes] == [segmented.name_of(each["group_id"]) for each in shapes]
    assert Image.open(io.BytesIO(read.image_data)).size == (32, 24)


def test_cvat_loads_with_datumaro(segmented, labels, tmp_path):
    path = written("cvat", segmented, tmp_path)
    polygons = ElementTree.parse(path).getroot().findall("image/polygon")
    outlines = []
    for order, each in enumerate(polygons):
        assert int(each.get("z_order")) == order
        points = [[float(number) for number in pair.split(",")] for pair in each.get("points").split(";")]
        outlines.append((int(each.get("group_id")) - 1, points))
    assert np.array_equal(painted(outlines, labels.shape), labels)
    (tmp_path / "images").mkdir()  # where a task of CVAT has its pictures
    Image.fromarray(segmented.result.image).save(tmp_path / "images" / "a photo.png")
    dataset = library("datumaro").Dataset.import_from(str(path), "cvat")
    (item,) = dataset
    names = [each.name for each in dataset.categories()[library("datumaro").AnnotationType.label]]
    assert [names[each.label] for each in item.annotations] == [segmented.name_of(segment) for segment, _ in outlines]
    assert [each.z_order for each in item.annotations] == list(range(len(outlines)))


def test_svg_paths_are_the_segments(segmented, labels, tmp_path):
    shapely = library("shapely")
    root = ElementTree.parse(written("svg", segmented, tmp_path)).getroot()
    assert root.get("viewBox") == "0 0 32 24"
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]] + 0.5
    for segment, path in enumerate(root.findall("{*}path")):
        inside = np.zeros(labels.shape, dtype=bool)
        for ring in path.get("d").removesuffix("Z").removeprefix("M").split("ZM"):
            points = [[float(number) for number in pair.split(",")] for pair in ring.split("L")]
            inside ^= shapely.contains_xy(shapely.polygons(points), x, y)  # fill-rule: evenodd
        assert np.array_equal(inside, labels == segment)
    assert path.find("{*}title").text == "plant 4"


def test_masks_are_the_picture_cut_out(segmented, labels, tmp_path):
    folder = written("masks", segmented, tmp_path)
    (folder / "005.png").write_bytes(b"of an earlier call")
    (folder / "mine.png").write_bytes(b"")
    write_content(folder, FORMATS["masks"].encode(segmented))
    assert sorted(path.name for path in folder.iterdir()) == [*(f"{i:03}.png" for i in range(5)), "mine.png"]
    for segment in range(5):
        pixels = np.asarray(Image.open(folder / f"{segment:03}.png"))
        assert np.array_equal(pixels[..., 3], (labels == segment) * 255)
        assert np.array_equal(pixels[labels == segment, :3], segmented.result.image[labels == segment])


def test_the_label_picture_has_colours_and_its_values_are_the_segments(segmented, labels, tmp_path):
    segmented.result.save(tmp_path / "labels.png", tmp_path / "overlay.png")
    with Image.open(tmp_path / "labels.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), labels)
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) == 5


@pytest.mark.parametrize("zero_affinity", ["drop", "keep"])
def test_regions_of_the_tree_are_its_labels_at_every_tau(zero_affinity):
    torch.manual_seed(0)
    kinds = torch.rand(6, 8).repeat_interleave(8, dim=0)
    tree = ncut_tree((kinds + 0.05 * torch.rand(48, 8))[None], 0.95, 10, zero_affinity=zero_affinity)
    hierarchy = Hierarchy.of(tree, {"alpha": 10}, (6, 8))
    assert len(hierarchy.parents) > 5
    for tau in (0, 0.2, 0.5, 0.7, 0.9, 0.95, *hierarchy.taus):
        ours, theirs = hierarchy.regions(tau).ravel(), tree.labels(tau)[0].numpy()
        pairs = np.unique(np.stack([ours, theirs]), axis=1).shape[1]
        assert pairs == len(np.unique(ours)) == len(np.unique(theirs))
    with pytest.raises(ValueError, match="answers"):
        hierarchy.regions(0.96)
    regions = hierarchy.to_dict()["regions"]
    for region in regions[1:]:
        parent = regions[region["parent"]]
        assert parent["id"] < region["id"]
        assert parent["tau"] <= region["tau"] < 0.95
        assert sum(each["patches"] for each in regions if each["parent"] == parent["id"]) == parent["patches"]


def test_the_tree_of_a_picture_has_the_segments_of_its_patches(tmp_path):
    config = load_config(["protocol=strict", "upsampler=nearest", "refiner=none", SMALL, "segmenter.tau=0.6"])
    result = PictureSegmenter(config)(skimage.data.coffee())
    hierarchy = result.hierarchy()
    assert hierarchy.max_tau == 0.8
    assert len(np.unique(hierarchy.regions(0.6))) == result.num_segments > 1
    tree = json.loads(written("tree", Segmented("a.png", result), tmp_path).read_text())
    assert tree["regions"] == hierarchy.to_dict()["regions"]
    assert (tree["width"], tree["height"]) == (600, 400)


def test_a_tree_says_what_it_depends_on_and_nothing_else(tmp_path):
    keys = {}
    for name in ("diffcut", "agglomerative"):
        config = load_config(["protocol=strict", f"segmenter={name}", "refiner=none", SMALL])
        result = PictureSegmenter(config)(skimage.data.coffee()[::4, ::4])
        tree = json.loads(written("tree", Segmented("a.png", result, tau=0.6), tmp_path).read_text())
        keys[name] = [key for key in tree if key not in ("image", "width", "height", "tau", "region_of_label")]
        assert tree["max_tau"] == {"diffcut": 0.8, "agglomerative": 1.0}[name]
    assert keys["diffcut"] == ["alpha", "max_tau", "regions", "leaf_of_patch"]
    assert keys["agglomerative"] == ["min_patches", "max_tau", "regions", "leaf_of_patch"]
    areas = [region["patches"] for region in tree["regions"]]
    assert areas[0] == np.size(tree["leaf_of_patch"]) and min(areas) >= tree["min_patches"]


@pytest.mark.parametrize("tau", [0.4, 0.6])
def test_labels_are_linked_to_the_regions_that_they_are_of(tau, tmp_path):
    config = load_config(["protocol=strict", "upsampler=nearest", "refiner=none", SMALL, f"segmenter.tau={tau}"])
    result = PictureSegmenter(config)(skimage.data.coffee())
    tree = json.loads(written("tree", Segmented("a.png", result, tau=tau), tmp_path).read_text())
    regions = result.hierarchy().regions(tau)
    assert tree["tau"] == tau
    assert sorted(tree["region_of_label"]) == np.unique(regions).tolist()
    # Pixels in the middle of a patch are of its region: nothing moved the borders.
    row, col = (
        (np.arange(count) * 2 + 1) * size // (2 * count) for size, count in zip((400, 600), regions.shape, strict=True)
    )
    assert np.array_equal(np.array(tree["region_of_label"])[result.labels[row[:, None], col]], regions)


def test_regions_go_to_labels_one_to_one():
    labels = np.zeros((8, 8), dtype=np.int64)
    labels[:, 3:] = 1
    labels[0, 7] = 2  # all that is left of a region whose patch is mostly another's
    regions = np.array([[5, 9], [5, 7]])
    assert regions_of_labels(labels, regions) == [5, 7, 9]


@pytest.mark.parametrize("formats", [5, {"svg": 5}, {"svg": {}}, {"svg": {"path": "../a.svg"}}])
def test_a_record_that_names_files_elsewhere_is_left_alone(formats, tmp_path):
    entry = {"image": "a", "sha256": "0", "settings": "0", "labels": "a", "overlay": "b", "segments": []}
    folder = tmp_path / "segments"
    folder.mkdir()
    record = {"schema_version": 2, "configs": {}, "images": [{**entry, "formats": formats}]}
    (folder / "segments.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="damaged"):
        SegmentRecord(folder, tmp_path, {}, {})


@pytest.mark.parametrize("words", ["", ",", "geojsn", "labels,pdf"])
def test_unknown_formats_are_named(words):
    with pytest.raises(UserError, match="format") as caught:
        chosen_formats(words)
    assert "geojson" in caught.value.hint


def test_a_missing_library_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed: shapely") as caught:
        chosen_formats("labels,svg")
    assert caught.value.hint == "pip install 'diffcut_bench[formats]'"
    assert [each.name for each in chosen_formats("overlay, masks,tree,masks")] == ["labels", "overlay", "masks", "tree"]


def test_the_command_writes_every_format(cli, tmp_path):
    for name in ("shapely", "pycocotools"):
        library(name)
    photo = tmp_path / "cat photo.png"
    Image.fromarray(skimage.data.chelsea()[::2, ::2]).save(photo)
    command = ("segment", photo, f"output_dir={tmp_path}", SMALL, "--format", ",".join(FORMATS), "--simplify", "1")
    done = cli(*command)
    assert done.code == 0, done.err
    folder = tmp_path / "segments"
    (entry,) = json.loads((folder / "segments.json").read_text())["images"]
    assert set(entry["formats"]) | {"labels", "overlay"} == set(FORMATS)
    assert all((folder / each["path"]).exists() for each in entry["formats"].values())
    assert len(list((folder / "cat photo_masks").iterdir())) == len(entry["segments"])
    assert "segmented before" in cli(*command).out
    assert "segmented before" in cli(*command[:4]).out


def test_what_can_not_be_written_is_said_before_or_by_the_picture(cli, tmp_path):
    for name in ("a", "b"):
        Image.fromarray(skimage.data.chelsea()[::4, ::4]).save(tmp_path / f"{name}.png")
    command = ("segment", tmp_path / "a.png", tmp_path / "b.png", f"output_dir={tmp_path}", SMALL)
    done = cli(*command, "--format", "tree", "segmenter=kmeans")
    assert done.code == 2
    assert "this segmenter has no tree" in done.err
    assert not (tmp_path / "segments").exists()
    assert "--simplify" in cli(*command, "--simplify", "-1").err
    library("shapely")
    (tmp_path / "a.pgw").write_text("no numbers")
    done = cli(*command, "--format", "geojson")
    assert done.code == 2
    assert "a.pgw" in done.err
    assert Path(tmp_path / "segments" / "b.geojson").is_file()
    (tmp_path / "a.pgw").write_text("1 0 0 -1 0 0")
    cropped = cli(*command[:2], *command[3:], "--format", "geojson", "protocol=released")
    assert cropped.code == 2
    assert "protocol=strict" in cropped.err
