"""What anyone may see of text and settings, in reports and exports alike."""

from diffcut_bench.redaction import HIDDEN, public, public_text, replace_folders


def test_text_without_folders():
    assert public_text("a/b and tau=0.5/1") == "a/b and tau=0.5/1", "no absolute path"
    assert public_text("/data/x/y.png is bad") == "…/y.png is bad"
    assert public_text("C:\\Users\\bob\\x.png") == "…/x.png"
    assert public("backbone.model", "segmind/SSD-1B") == "segmind/SSD-1B"
    assert public("backbone.model", "/models/SSD-1B/") == "…/SSD-1B"
    assert public("dataset.root", "{output_dir}/../shapes") == "…/shapes"
    assert public("dataset.root", "/home/bob") == "…/~"
    assert public("backbone.token", None) is None
    assert public("linker.clusters", True) is True
    assert public("segmenter.note", "/mnt/My Photos of Bob/x.png") == "…/x.png", "blanks in a path as a whole"
    assert public("segmenter.note", "bob@nas:/data/secret/x") == public("segmenter.note", "nas:~/x") == "…/x"
    assert public_text("from bob@nas:/data/secret/x, by bob@x.example") == f"from …/x, by {HIDDEN}"
    assert public("backbone.model", "https://host/a b/c") == "…/a b/c" and public("shard", "1/4") == "1/4"


def test_secrets_inside_lists_and_dicts_are_hidden():
    value = [{"api_key": "hunter2", "size": 5.0, "file": "/home/alice/deep/x.pt", "entity": None}, "/home/alice/y"]
    assert public("segmenter.parts", value) == [
        {"api_key": HIDDEN, "size": 5.0, "file": "…/x.pt", "entity": None},
        "…/y",
    ]
    assert public("backbone.class_token", True) is True, "no secret has two values"


def test_folders_are_replaced_whole():
    names = {"/data/out": ".", "/data": "{root}", "/": "never", "": "never"}
    said = replace_folders("/data/out/x, /data/outer, /mnt/data/y, /data", names)
    assert said == "./x, {root}/outer, /mnt/data/y, {root}"
