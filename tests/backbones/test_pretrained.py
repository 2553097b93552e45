import hashlib
import json
import pickle
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from diffcut_bench.backbones.pretrained import MissingWeightsError, cache_only, file_digest, find_checkpoint
from diffcut_bench.errors import UserError

MODEL = "someone/some-vit"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WANTED = [("config.json",), ("model.safetensors", "pytorch_model.bin")]
CONTENT = {"config.json": b"{}", "model.safetensors": b"weights"}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, which must not be asked."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def fill(cache: Path, content: dict[str, bytes], revision: str = "main", commit: str = COMMIT) -> Path:
    """Lay files out as the hub's client does; returns the snapshot."""
    repository = cache / f"models--{MODEL.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    for folder in (repository / "blobs", repository / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    if revision != commit:
        (repository / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    for name, data in content.items():
        blob = repository / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / name).symlink_to(blob)
    return snapshot


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks for; ``state`` is what it has and how it answers."""

    state: dict[str, object]

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        files, problem = self.state["files"], self.state["problem"]
        assert isinstance(files, dict)
        self.state["asked"].append(path)
        status, headers, body = 200, {}, b""
        if problem and path.startswith(self.state["problem_at"]):
            status, headers = problem
        elif path == f"/api/models/{MODEL}/revision/main":
            listed = [{"rfilename": name} for name in files]
            body = json.dumps({"id": MODEL, "sha": COMMIT, "siblings": listed}).encode()
        elif path == f"/api/models/{MODEL}/tree/{COMMIT}":
            tree = [{"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in files.items()]
            body = json.dumps(tree).encode()
        elif name in files and "/resolve/" in path:
            body = files[name]
            headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        else:
            status, headers = 404, {"X-Error-Code": "EntryNotFound"}
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(cache, monkeypatch) -> Iterator[dict[str, object]]:
    """A hub on this machine and the client pointed at it."""
    state: dict[str, object] = {"files": dict(CONTENT), "problem": None, "problem_at": "/", "asked": []}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ThisHub", (Hub,), {"state": state}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_folder_gives_the_preferred_of_each_file(tmp_path):
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"1")
    checkpoint = find_checkpoint(str(tmp_path), WANTED)
    assert checkpoint.files == {name: tmp_path / name for name in ("config.json", "pytorch_model.bin")}
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert set(find_checkpoint(str(tmp_path), WANTED).files) == {"config.json", "model.safetensors"}


def test_a_folder_is_of_no_commit_whatever_is_asked_for(tmp_path):
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    assert find_checkpoint(str(tmp_path), WANTED, revision=COMMIT).revision == ""
    asked = (find_checkpoint(str(tmp_path), WANTED, revision=revision) for revision in ("main", COMMIT, "v2"))
    assert len({str(checkpoint.identity()) for checkpoint in asked}) == 1, "the files say what it is"


def test_all_files_that_a_folder_lacks_are_named_at_once(tmp_path):
    (tmp_path / "README.md").touch()
    with pytest.raises(UserError) as caught:
        find_checkpoint(str(tmp_path), WANTED, option="backbone.vae")
    assert "config.json, model.safetensors" in caught.value.what
    assert str(tmp_path) in caught.value.where
    assert "backbone.vae" in caught.value.hint


@pytest.mark.parametrize("model", ["/no/such/folder", "./some/folder", "word", "a/b/c"])
def test_neither_folder_nor_hub_id(model):
    with pytest.raises(UserError, match="no such folder") as caught:
        find_checkpoint(model, WANTED)
    assert "OWNER/MODEL" in caught.value.hint


def test_what_is_cached_is_found_offline(cache):
    snapshot = fill(cache, CONTENT)
    checkpoint = find_checkpoint(MODEL, WANTED)
    assert checkpoint.files == {name: snapshot / name for name in CONTENT}
    assert find_checkpoint(MODEL, WANTED, revision=COMMIT) == checkpoint, "a branch is the commit that it stands for"
    assert checkpoint.revision == COMMIT


def test_the_folder_that_hf_download_prints_is_the_model(cache):
    snapshot = fill(cache, CONTENT)
    assert find_checkpoint(str(snapshot), WANTED).identity() == find_checkpoint(MODEL, WANTED).identity()
    (snapshot / "part").mkdir()
    for name, data in CONTENT.items():
        (snapshot / "part" / name).write_bytes(data)
    assert find_checkpoint(str(snapshot / "part"), WANTED).name == "part", "a folder inside it is another network"


def test_identity_says_the_sha256_of_the_files_with_weights(cache, tmp_path):
    fill(cache, CONTENT)
    digest = hashlib.sha256(b"weights").hexdigest()
    assert find_checkpoint(MODEL, WANTED).identity()["sha256:model.safetensors"] == digest
    for name, data in CONTENT.items():
        (tmp_path / name).write_bytes(data)
    said = find_checkpoint(str(tmp_path), WANTED).identity()
    assert said["sha256:model.safetensors"] == digest
    assert "sha256:config.json" not in said
    assert said["checkpoint"] == tmp_path.name


def test_offline_every_missing_file_is_named_with_the_command_that_fetches_it(cache):
    fill(cache, {"config.json": b"{}"})
    with pytest.raises(UserError) as caught:
        find_checkpoint(MODEL, [*WANTED, ("preprocessor_config.json",)], revision="main")
    assert f"model.safetensors (or pytorch_model.bin), preprocessor_config.json of {MODEL} missing" in caught.value.what
    assert "HF_HUB_OFFLINE" in caught.value.where
    assert str(cache) in caught.value.where
    assert f"`hf download {MODEL} model.safetensors pytorch_model.bin preprocessor_config.json`" in caught.value.hint
    assert "backbone.model=DIR" in caught.value.hint


MANY = [(f"part{number}.json",) for number in range(4)]
PINNED = "f" * 40


def test_all_of_many_files_are_counted_and_the_command_names_them(cache):
    with pytest.raises(UserError) as caught:
        find_checkpoint(MODEL, MANY, revision=PINNED)
    assert caught.value.what == f"all 4 files of {MODEL} missing at {PINNED}"
    names = " ".join(name for (name,) in MANY)
    assert f"`hf download {MODEL} {names} --revision {PINNED}`" in caught.value.hint
    assert "the cache has" not in caught.value.hint
    fill(cache, {"part0.json": b"0"})
    with pytest.raises(UserError, match=r"part1\.json, part2\.json, part3\.json of"):
        find_checkpoint(MODEL, MANY)


@pytest.mark.parametrize("revision", ["main", "refs/pr/1", COMMIT])
@pytest.mark.parametrize(
    ("option", "override"),
    [("backbone.model", "backbone.revision="), ("namer.model", "namer.revision="), ("backbone.vae", f"{MODEL}@")],
)
def test_a_complete_model_of_another_revision_is_offered(cache, revision, option, override):
    fill(cache, {"config.json": b"{}", "pytorch_model.bin": b"weights"}, revision)
    at = COMMIT[:7] if revision == COMMIT else f"{revision} ({COMMIT[:7]})"
    with pytest.raises(MissingWeightsError) as caught:
        find_checkpoint(MODEL, WANTED, revision=PINNED, option=option)
    assert caught.value.elsewhere.startswith(f"the cache has them at {at}: ")
    assert caught.value.elsewhere.endswith(f"{override}{revision} takes these")
    assert caught.value.elsewhere in caught.value.hint
    assert pickle.loads(pickle.dumps(caught.value)).elsewhere == caught.value.elsewhere
    assert find_checkpoint(MODEL, WANTED, revision=revision).revision == COMMIT, "the advice works"


def test_of_several_revisions_the_complete_one_is_offered_and_main_first(cache):
    fill(cache, CONTENT, "aside", COMMIT)
    fill(cache, {"config.json": b"{}"}, "main", "a" * 40)
    offer = re.escape(f"the cache has them at aside ({COMMIT[:7]}): backbone.revision=aside takes these")
    for asked in (PINNED, "main"):
        with pytest.raises(UserError, match=offer):
            find_checkpoint(MODEL, WANTED, revision=asked)
    fill(cache, CONTENT, "main", "b" * 40)
    with pytest.raises(UserError, match=r"at main \(bbbbbbb\): backbone.revision=main"):
        find_checkpoint(MODEL, WANTED, revision=PINNED)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"no/commit"])
def test_a_damaged_ref_offers_nothing(cache, content):
    snapshot = fill(cache, {"config.json": b"{}"})
    (snapshot.parents[1] / "refs" / "main").write_bytes(content)
    with pytest.raises(MissingWeightsError) as caught:
        find_checkpoint(MODEL, WANTED, revision=PINNED)
    assert caught.value.elsewhere == ""


@pytest.mark.parametrize("revision", ["", "..", "a/../b", "/etc/passwd", "-x", "a b", "main;", "v1\n"])
def test_what_can_t_be_a_revision_is_refused(cache, revision):
    with pytest.raises(UserError, match="is no revision of the hub") as caught:
        find_checkpoint(MODEL, WANTED, revision=revision)
    assert "backbone.revision=main" in caught.value.hint


def test_a_revision_is_part_of_the_command(cache):
    with pytest.raises(UserError, match=r"hf download \S+ config.json \S+ pytorch_model.bin --revision v2`") as caught:
        find_checkpoint(MODEL, WANTED, revision="v2")
    assert pickle.loads(pickle.dumps(caught.value)).command == caught.value.command, "processes tell each other"


def test_the_fingerprint_follows_names_and_contents(tmp_path):
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = find_checkpoint(str(tmp_path), WANTED).fingerprint()
    assert find_checkpoint(str(tmp_path), WANTED).fingerprint() == first
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert find_checkpoint(str(tmp_path), WANTED).fingerprint() != first
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights")
    assert find_checkpoint(str(tmp_path), WANTED).fingerprint() != first


def test_a_cached_checkpoint_and_its_copy_have_one_fingerprint(cache, tmp_path):
    fill(cache, CONTENT)
    for name, data in CONTENT.items():
        (tmp_path / name).write_bytes(data)
    assert find_checkpoint(MODEL, WANTED).fingerprint() == find_checkpoint(str(tmp_path), WANTED).fingerprint()


def test_a_large_file_of_the_cache_is_known_by_its_name(cache):
    snapshot = fill(cache, CONTENT)
    digest = hashlib.sha256(b"weights").hexdigest()
    assert file_digest(snapshot / "model.safetensors") == digest
    (snapshot / "model.safetensors").resolve().write_bytes(b"")  # it is not read
    assert file_digest(snapshot / "model.safetensors") == digest


def test_small_files_of_the_cache_are_read(cache):
    """Their blobs bear git's SHA-1 of 40 digits."""
    snapshot = fill(cache, {})
    blob = snapshot.parents[1] / "blobs" / ("a" * 40)
    blob.write_bytes(b"{}")
    (snapshot / "config.json").symlink_to(blob)
    assert file_digest(snapshot / "config.json") == hashlib.sha256(b"{}").hexdigest()


def test_what_is_missing_is_downloaded(hub, cache):
    checkpoint = find_checkpoint(MODEL, WANTED)
    assert {name: path.read_bytes() for name, path in checkpoint.files.items()} == CONTENT
    assert all(cache in path.parents for path in checkpoint.files.values())
    hub["problem"] = (500, {})
    assert find_checkpoint(MODEL, WANTED).files == checkpoint.files


def test_a_branch_that_moved_between_two_downloads_is_read_at_one_commit(hub, cache):
    fill(cache, {"config.json": b'{"old": 1}'})
    repository = cache / f"models--{MODEL.replace('/', '--')}"
    (repository / "refs" / "main").write_text("f" * 40)
    (repository / "snapshots" / COMMIT).rename(repository / "snapshots" / ("f" * 40))
    checkpoint = find_checkpoint(MODEL, WANTED)  # the weights come from the hub, where the branch is at COMMIT
    assert checkpoint.revision == COMMIT
    assert {name: path.read_bytes() for name, path in checkpoint.files.items()} == CONTENT


def test_the_next_name_is_taken_where_the_hub_lists_no_file_of_the_first(hub):
    hub["files"] = {"config.json": b"{}", "pytorch_model.bin": b"weights", "README.md": b""}
    assert set(find_checkpoint(MODEL, WANTED).files) == {"config.json", "pytorch_model.bin"}
    fetched = {path for path in hub["asked"] if "/resolve/" in path}
    assert fetched == {f"/{MODEL}/resolve/{COMMIT}/{name}" for name in ("config.json", "pytorch_model.bin")}
    hub["asked"].clear()
    find_checkpoint(MODEL, WANTED)
    assert hub["asked"] == [], "all of it is here"


def test_weights_that_are_here_are_not_fetched_again_in_another_format(hub, cache):
    fill(cache, {"pytorch_model.bin": b"weights"})
    hub["files"] = {**CONTENT, "pytorch_model.bin": b"weights"}
    assert set(find_checkpoint(MODEL, WANTED).files) == {"config.json", "pytorch_model.bin"}


def test_a_file_that_the_hub_lacks(hub):
    hub["files"] = {"config.json": b"{}"}
    with pytest.raises(UserError) as caught:
        find_checkpoint(MODEL, WANTED)
    assert caught.value.what == f"model.safetensors (or pytorch_model.bin) of {MODEL} missing"
    assert "the hub has no such file" in caught.value.where
    assert not any("/resolve/" in path for path in hub["asked"]), "nothing is fetched for what can't be read"


@pytest.mark.parametrize("problem_at", ["/", f"/{MODEL}/resolve/"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_says_so(hub, status, problem_at):
    hub["problem"], hub["problem_at"] = (status, {"X-Error-Code": "GatedRepo"}), problem_at
    with pytest.raises(UserError) as caught:
        find_checkpoint(MODEL, WANTED)
    assert f"{MODEL} is gated" in caught.value.what
    assert caught.value.where == f"https://huggingface.co/{MODEL}"
    assert "hf auth login" in caught.value.hint
    assert "backbone.model" in caught.value.hint


@pytest.mark.parametrize(("status", "code"), [(401, "RepoNotFound"), (404, "RevisionNotFound")])
def test_a_model_or_revision_that_the_hub_lacks(hub, status, code):
    hub["problem"] = (status, {"X-Error-Code": code})
    with pytest.raises(UserError, match=f"the hub has no {MODEL} at revision v9"):
        find_checkpoint(MODEL, WANTED, revision="v9")


def test_within_cache_only_nothing_is_downloaded(hub, cache):
    with cache_only(), pytest.raises(UserError, match="not downloaded yet"):
        find_checkpoint(MODEL, WANTED)
    assert not cache.exists()
    assert find_checkpoint(MODEL, WANTED).files


def test_a_download_that_fails_is_one_message(hub):
    hub["problem"], hub["problem_at"] = (404, {"X-Error-Code": "EntryNotFound"}), f"/{MODEL}/resolve/"
    with pytest.raises(MissingWeightsError) as caught:
        find_checkpoint(MODEL, WANTED)
    assert "the hub can't be reached (" in caught.value.where
    assert "config.json" in caught.value.what


def test_without_network_it_does_not_wait(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match="the hub can't be reached"):
        find_checkpoint(MODEL, WANTED)
