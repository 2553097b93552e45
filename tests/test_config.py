import pytest

from diffcut_bench.config import conf_dir, instantiate, load_config, quote_if_needed
from diffcut_bench.errors import UserError


def test_the_default_is_the_embedded_one():
    config = load_config([])
    assert config.choices["dataset"] == "sample"
    assert (config.segmenter["tau"], config.segmenter["alpha"]) == (0.5, 5)
    assert config.segmenter["label_codes"] == "float32"


def test_stages_follow_the_protocol_unless_told_otherwise():
    config = load_config(["protocol=strict"])
    assert config.segmenter["label_codes"] == "exact"
    assert config.upsampler["similarity"] == "cosine"
    assert load_config(["protocol=strict", "upsampler.similarity=dot"]).upsampler["similarity"] == "dot"


@pytest.mark.parametrize("group", ["dataset", "backbone", "segmenter", "upsampler", "refiner", "protocol"])
def test_every_option_composes(group):
    options = [path.stem for path in (conf_dir() / group).glob("*.yaml")]
    assert options
    for option in options:
        assert load_config([f"{group}={option}"]).choices[group] == option


@pytest.mark.parametrize(
    ("override", "what", "next_"),
    [
        ("dataset=vox", "unknown option dataset=vox", "did you mean voc?"),
        ("segmenter.taus=0.4", "unknown key segmenter.taus", "segmenter.tau"),
        ("segmentr.tau=0.4", "unknown key segmentr.tau", "segmenter.tau"),
        ("tau=0.4", "unknown key tau", "segmenter.tau"),
        ("batchsize=4", "unknown key batchsize", "batch_size"),
        ("batch_size=many", "many", "batch_size"),
        ("batch_size=0", "batch_size must be at least 1", "conf/config.yaml"),
        ("if_exists=maybe", "if_exists must be skip | resume | overwrite", "conf/config.yaml"),
        ("segmenter.tau=0.1,0.2", "several values", "add -m"),
        ("shard=3/2", "shard must be i/n", "conf/config.yaml"),
        ("shard=0/2", "shard must be i/n", "conf/config.yaml"),
        ("nonsense", "no override", "key=value"),
        ("+segmenter.taus=1", None, None),
    ],
)
def test_mistakes_are_explained(override, what, next_):
    if what is None:  # Hydra's own way to add a key stays open; the target refuses it
        config = load_config([override])
        with pytest.raises(UserError, match="taus"):
            instantiate("segmenter", config.segmenter)
        return
    with pytest.raises(UserError) as caught:
        load_config(["segmenter.alpha=3", override])
    assert what in caught.value.what
    assert next_ in caught.value.hint


def test_all_values_out_of_range_are_said_at_once():
    with pytest.raises(UserError) as caught:
        load_config(["batch_size=0", "num_workers=-1", "if_exists=no"])
    assert all(name in caught.value.what for name in ("batch_size", "num_workers", "if_exists"))


@pytest.mark.parametrize("value", ["/data/VOC (2012)/a [b]", "/tmp/it's here"])
def test_paths_that_hydra_can_not_read_are_quoted(value):
    assert load_config([f"output_dir={value}"]).output_dir == value


def test_what_hydra_can_read_is_left_alone():
    assert quote_if_needed("segmenter.tau=0.1,0.2") == "segmenter.tau=0.1,0.2"


def test_a_third_party_adds_an_option_by_searchpath(tmp_path):
    (tmp_path / "segmenter").mkdir()
    (tmp_path / "segmenter" / "mine.yaml").write_text("_target_: diffcut_bench.segmenters.DiffCut\ntau: 0.25\n")
    config = load_config([f"hydra.searchpath=[file://{tmp_path}]", "segmenter=mine"])
    assert instantiate("segmenter", config.segmenter).tau == 0.25


def test_a_refused_argument_names_option_and_reason():
    config = load_config(["segmenter.tau=2"])
    with pytest.raises(UserError) as caught:
        instantiate("segmenter", config.segmenter)
    assert "tau must lie in [0, 1], not 2" in caught.value.what
    assert "segmenter" in caught.value.where
