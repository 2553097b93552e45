import pytest

from diffcut_bench.config import (
    RunConfig,
    build_protocol,
    conf_dir,
    expand_sweep,
    instantiate,
    load_config,
    quote_if_needed,
)
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


def test_namers_follow_the_protocol_unless_told_otherwise(tmp_path):
    def chosen(*overrides, namer="convnext_l"):
        config = load_config([f"namer={namer}", *overrides]).namer
        return config["input"], config["pooling"]

    sound = ("normalised", "pixels")
    assert chosen("protocol=released") == ("unit", "nearest_exact")
    assert chosen("protocol=paper") == chosen("protocol=strict") == sound
    assert chosen("protocol=released", "namer.input=normalised", "namer.pooling=pixels") == sound
    assert chosen("protocol=strict", "protocol.name_input=unit") == ("unit", "pixels")
    for namer in ("clip_b16", "siglip_b16"):  # which the released evaluation does not have
        assert chosen("protocol=released", namer=namer) == ("normalised", "nearest_exact")
        assert chosen("protocol=strict", namer=namer) == sound
    (tmp_path / "protocol").mkdir()
    released = (conf_dir() / "protocol" / "released.yaml").read_text().splitlines()
    older = [line for line in released if not line.startswith("name_")]
    (tmp_path / "protocol" / "older.yaml").write_text("\n".join(older))
    own = [f"hydra.searchpath=[file://{tmp_path}]", "protocol=older"]
    assert chosen(*own) == sound
    protocol = build_protocol(load_config(own).protocol)
    assert (protocol.name_input, protocol.name_pooling) == sound


@pytest.mark.parametrize("group", ["dataset", "backbone", "segmenter", "upsampler", "refiner", "protocol"])
def test_every_option_composes(group):
    options = {path.stem for path in (conf_dir() / group).glob("*.yaml")} - {"fused"}  # which wants names of others
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
        ("segmenter.tau=[0.1,0.2],3", "several values", "segmenter.tau=[[0.1,0.2],3] for a list"),
        ("nonsense", "no override", "key=value"),
        ("colour", "no override", "did you mean backbone=colour?"),
        ("backbone:colour", "no override", "backbone=colour"),
        ("dataset", "no override", "dataset=OPTION, of ade20k"),
        ("dataset=VOC", "unknown option", "did you mean voc?"),
        ("refiner=null", "unknown option refiner=null", "did you mean none?"),
        ("dataset.num_classes=3", "unknown key dataset.num_classes", "dataset=folder has it"),
        ("segmenter.clusters=3", "unknown key", "segmenter=kmeans or segmenter=spectral has it"),
        ("backbone.timestep=3", "unknown key", "backbone=sd14"),
        ("dataset.rot=/x", "unknown key", "this dataset takes no settings; choose another: ade20k"),
        ("segmenter.alphas=5", "unknown key", "did you mean segmenter.alpha? it is set already: remove one"),
        ("+segmenter.tau=0.4", "segmenter.tau is there already", "segmenter.tau=0.4"),
        ("+foo=1", "unknown key foo", "available:"),
        ("~segmenter", "a run needs segmenter", "available: agglomerative"),
        ("~segmenter.tau=0.9", "segmenter.tau has another value", "~segmenter.tau removes it"),
        ("~nope", "there is no nope to remove", "available:"),
        ("+experiment=table1", "many cells", "diffcut-bench reproduce table1"),
        ("+experiment=mine", "unknown option experiment=mine", "hydra.searchpath"),
        ("experiment=mine", "unknown option experiment=mine", "hydra.searchpath"),
        ("protocol=glob(*)", "several values", "add -m"),
        ("limit=none", "limit must be a whole number or null, not none", "write limit=null"),
        ("batch_size=1e9", "batch_size must be a whole number", "write batch_size=1000000000"),
        ("batch_size=true", "batch_size must be a whole number, not True", "batch_size=N"),
        ("device=null", "device must be text, not null", "device="),
        ("output_dir=null", "output_dir must be text, not null", "output_dir=DIR"),
        ("num_workers=5000", "num_workers must be at most 1024", "conf/config.yaml"),
        ("hydra.run.dir=/tmp/x", "hydra.run.dir has no effect here", "output_dir=DIR"),
        ("hydra.sweep.dir=/tmp/x", "hydra.sweep.dir has no effect here", "output_dir=DIR"),
        ("hydra.mode=MULTIRUN", "hydra.mode has no effect here", "run -m"),
        ("hydra/sweeper=optuna", "a sweeper chooses the cells of a sweep", "add -m"),
        ("hydra.verbose=true", "hydra.verbose has no effect here", "hydra.searchpath"),
        ("hydra/launcher=joblib", "a launcher starts the passes of a sweep", "add -m"),
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


def test_the_order_of_overrides_does_not_move_the_blame():
    with pytest.raises(UserError) as caught:
        load_config(["dataset.num_classes=3", "dataset=folder", "segmenter.tauu=3"])
    assert caught.value.where == "segmenter.tauu=3"


def test_a_key_of_an_option_of_the_users_own_is_known(tmp_path):
    (tmp_path / "segmenter").mkdir()
    (tmp_path / "segmenter" / "mine.yaml").write_text("_target_: diffcut_bench.segmenters.DiffCut\nstrength: 1\n")
    own = f"hydra.searchpath=[{tmp_path}]"
    with pytest.raises(UserError) as caught:
        load_config([own, "segmenter.strength=2"])
    assert caught.value.hint == "segmenter=mine has it"
    with pytest.raises(UserError) as caught:
        load_config([own, "segmenter=mien"])
    assert "did you mean mine" in caught.value.hint


@pytest.mark.parametrize(("written", "said"), [("[a,true,b]", "true"), ("[1,false]", "false"), ("[a,null]", "null")])
def test_a_list_with_a_yes_or_a_nothing_among_words_is_refused(written, said):
    with pytest.raises(UserError, match=f"{said} among the words or numbers") as caught:
        load_config(["dataset=folder", f"dataset.class_names={written}"])
    assert "quote" in caught.value.hint
    assert load_config(["dataset=folder", "dataset.class_names=['yes','null']"]).dataset["class_names"] == [
        "yes",
        "null",
    ]


def test_an_argument_that_a_target_does_not_take_is_named_with_those_that_it_takes():
    with pytest.raises(UserError, match=r"there is no segmenter\.taus") as caught:
        instantiate("segmenter", load_config(["+segmenter.taus=1"]).segmenter)
    assert "did you mean segmenter.tau" in caught.value.hint
    with pytest.raises(UserError) as caught:
        instantiate("refiner", {"_target_": "datetime.timedelta", "days": "3", "hours": 1})
    assert caught.value.hint == "check refiner.days=3, refiner.hours=1"


def test_a_sweep_over_options_by_pattern(tmp_path):
    names = [path.stem for path in sorted((conf_dir() / "protocol").glob("*.yaml"))]
    assert expand_sweep(["protocol=glob(*)"]) == [[f"protocol={name}"] for name in names]
    assert expand_sweep(["protocol=glob(*,exclude=s*)"]) == [
        [f"protocol={name}"] for name in ("bsds", "paper", "released")
    ]
    assert expand_sweep(["backbone=glob([sd14,dino_b8])"]) == [["backbone=dino_b8"], ["backbone=sd14"]]
    (tmp_path / "protocol").mkdir()
    (tmp_path / "protocol" / "mine.yaml").write_text("name: mine\n")
    own = f"hydra.searchpath=[{tmp_path}]"
    assert expand_sweep([own, "protocol=glob(m*)"]) == [[own, "protocol=mine"]]


@pytest.mark.parametrize(
    ("override", "what", "next_"),
    [
        ("protocol=glob(x*)", "no option of protocol fits", "available: bsds, paper"),
        ("segmenter.tau=glob(*)", "glob() is for the options of a group", "key=a,b"),
        ("segmenter.tau=range(1,0)", "a sweep over no value", "range(start,stop,step)"),
        ("segmenter.tau=range(0,1,0)", "is no override", "key=value"),
        ("segmenter.tau=interval(0,1)", "an interval is no list of values", "range(start,stop,step)"),
        ("segmenter.tau=range(0,1,0.000001)", "a sweep of more than 10000 cells", "fewer values"),
        ("seed=range(0,1000000000)", "a sweep of more than 10000 cells", "fewer values"),
    ],
)
def test_sweeps_that_can_not_be(override, what, next_):
    with pytest.raises(UserError) as caught:
        expand_sweep(["limit=1", override])
    assert what in caught.value.what
    assert caught.value.where == override
    assert next_ in caught.value.hint


def test_a_sweep_over_folders_keeps_their_names():
    assert expand_sweep(["dataset.root=2024.10,2024.20"]) == [["dataset.root=2024.10"], ["dataset.root=2024.20"]]
    roots = [load_config(["dataset=voc", *cell]).dataset["root"] for cell in expand_sweep(["dataset.root=1e3, 007"])]
    assert roots == ["1e3", "007"]


def test_all_values_out_of_range_are_said_at_once():
    with pytest.raises(UserError) as caught:
        load_config(["batch_size=0", "num_workers=-1", "if_exists=no"])
    assert all(name in caught.value.what for name in ("batch_size", "num_workers", "if_exists"))


@pytest.mark.parametrize("value", ["/data/VOC (2012)/a [b]", "/tmp/it's here"])
def test_paths_that_hydra_can_not_read_are_quoted(value):
    assert load_config([f"output_dir={value}"]).output_dir == value


PIN = load_config(["backbone=ssd1b"]).backbone["revision"]


@pytest.mark.parametrize(
    ("words", "revision"),
    [
        (["backbone.model=someone/other"], "main"),
        (["backbone.model=someone/other", "backbone.revision=v2"], "v2"),
        (["backbone.revision=v2", "backbone.model=someone/other"], "v2"),
        (["++backbone.model=someone/other", "backbone.timestep=3"], "main"),
        (["backbone.model=segmind/SSD-1B"], PIN),
        (["backbone.model=/weights/SSD-1B"], PIN),
        (["backbone.timestep=3"], PIN),
    ],
)
def test_a_pin_is_of_the_yaml_s_own_model(words, revision):
    assert PIN != "main"
    assert load_config(["backbone=ssd1b", *words]).backbone["revision"] == revision


def test_a_pin_of_a_yaml_of_the_user_s_is_of_its_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for group, base in (("backbone", "ssd1b"), ("namer", "clip_b16")):
        (tmp_path / group).mkdir()
        text = f"defaults: [{base}, _self_]\nmodel: our/net\nrevision: v7\n"
        (tmp_path / group / "mine.yaml").write_text(text)
        mine = [f"hydra.searchpath=[{tmp_path}]", f"{group}=mine"]
        assert getattr(load_config([*mine, f"{group}.model=our/net"]), group)["revision"] == "v7"
        assert getattr(load_config([*mine, f"{group}.model=your/net"]), group)["revision"] == "main"
    (tmp_path / "your" / "net").mkdir(parents=True)
    assert load_config([*mine, "namer.model=your/net"]).namer["revision"] == "v7", (
        "a folder has none, and is not judged"
    )


@pytest.mark.parametrize("text", ["12345", "60987e3", "1_0", "true"])
def test_digits_are_a_revision_as_typed(text):
    assert load_config(["backbone=ssd1b", f"backbone.revision={text}"]).backbone["revision"] == text
    swept = expand_sweep(["backbone=ssd1b", f"backbone.revision={text},v2"])
    assert [load_config(words).backbone["revision"] for words in swept] == [text, "v2"]


def test_a_revision_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="must be text, not null"):
        load_config(["backbone=ssd1b", "backbone.revision=null"])
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "mine.yaml").write_text("defaults: [ssd1b, _self_]\nrevision: 12345\n")
    with pytest.raises(UserError, match="must be text, not 12345"):
        load_config([f"hydra.searchpath=[{tmp_path}]", "backbone=mine"])


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


def test_a_score_is_a_metric_s_name():
    assert load_config([]).score == "miou"
    assert load_config(["score=pixel_accuracy"]).score == "pixel_accuracy"
    with pytest.raises(UserError, match="no metric is named 'mIoU'") as refused:
        load_config(["score=mIoU"])
    assert refused.value.hint.startswith("did you mean miou")
    old = {name: value for name, value in load_config([]).to_dict().items() if name != "score"}
    assert RunConfig(**old).score == "miou", "configs of older results have none"


@pytest.mark.parametrize("group", ["backbone", "dataset", "features", "linker", "namer", "refiner", "upsampler"])
def test_an_option_that_builds_something_else_is_told(group):
    with pytest.raises(UserError, match=f"gives dict, which is no {group}"):
        instantiate(group, {"_target_": "builtins.dict", "a": 1})


def test_an_option_of_itself_is_a_user_error(tmp_path):
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "endless.yaml").write_text("defaults: [endless]\n")
    with pytest.raises(UserError) as raised:
        load_config([f"hydra.searchpath=[{tmp_path}]", "backbone=endless"])
    assert raised.value.where == "backbone=endless"


@pytest.mark.parametrize(
    ("target", "what", "hint"),
    [
        ("myne.Halves", "there is no module myne", "did you mean mine.Halves?"),
        ("Halves", "there is no module Halves", "a target is MODULE.NAME"),
        ("diffcut_bench.segmenters.DifCut", "diffcut_bench.segmenters has no DifCut", "did you mean diffcut or Inputs"),
        ("diffcut_bench.nowhere.Cut", "there is no module diffcut_bench.nowhere", "PYTHONPATH and the current folder"),
    ],
)
def test_a_target_that_is_not_there_says_what_is_and_where_it_was_looked_for(target, what, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    with pytest.raises(UserError) as caught:
        instantiate("segmenter", {"_target_": target})
    assert (caught.value.what, caught.value.where) == (what, f"segmenter={target}")
    assert hint in caught.value.hint
