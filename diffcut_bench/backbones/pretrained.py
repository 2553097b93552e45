"""Pretrained weights on disk: a folder in the hub's layout, or the hub's cache, which is filled on demand."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.paths import is_hub_id

# Names of one file, the preferred one first: a checkpoint with half-precision weights need not send the others too.
Names = Sequence[str]

_WEIGHTS = (".safetensors", ".bin")
_REVISION = re.compile(r"\w(?!.*\.\.)[\w./-]*")  # of the hub: a branch, tag or commit
_SNAPSHOT = re.compile(r"/models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40})$")  # of the hub's cache

_downloads_allowed: ContextVar[bool] = ContextVar("downloads_allowed", default=True)
_PATIENCE_S = 5.0  # for the hub's answer to what a model's files are


class MissingWeightsError(UserError):
    """Files of a model are not on this machine.

    Attributes:
        model: hub id.
        command: what fetches them, where there is network.
        gated: access has to be asked for first.
        elsewhere: what the cache has them at instead, and the override that takes these; empty if there is nothing.
        says_more: the message is of something else that is missing as well, such as the library that reads them.
    """

    says_more = False

    def __init__(
        self,
        what: str,
        where: str,
        hint: str,
        *,
        model: str = "",
        command: str = "",
        gated: bool = False,
        elsewhere: str = "",
    ) -> None:
        super().__init__(what, where, hint)
        self.model, self.command, self.gated, self.elsewhere = model, command, gated, elsewhere

    def say_first(self, other: UserError) -> None:
        """Give the message of something else that is missing as well."""
        UserError.__init__(self, other.what, other.where, other.hint)
        self.says_more = True


@contextmanager
def cache_only() -> Iterator[None]:
    """Within this, nothing is downloaded: what is not on disk is missing."""
    token = _downloads_allowed.set(False)
    try:
        yield
    finally:
        _downloads_allowed.reset(token)


@dataclass(frozen=True)
class Checkpoint:
    """Files of a model.

    Attributes:
        model: hub id, or the folder as asked for.
        revision: commit that the hub's branch or tag stood for; empty of a folder, whose files nobody knows one of.
        files: path of each file by the name it was found under.
    """

    model: str
    revision: str
    files: Mapping[str, Path]

    @property
    def name(self) -> str:
        """The hub id, or the folder's own name: the same weights elsewhere on the disk are the same model."""
        folder = Path(self.model).expanduser()
        return folder.resolve().name if folder.is_dir() else self.model

    def weights(self, folder: str = "") -> Path:
        """The file with weights of a component, such as ``unet``, or of the top."""
        return next(
            path for name, path in self.files.items() if name.endswith(_WEIGHTS) and name.rpartition("/")[0] == folder
        )

    def identity(self) -> dict[str, str]:
        """Model, commit, hash of all files, and the SHA-256 of each file with weights, as the hub's pages tell it."""
        weights = {name: path for name, path in self.files.items() if path.suffix in _WEIGHTS}
        return {
            "checkpoint": self.name,
            "revision": self.revision,
            "weights_sha256": self.fingerprint(),
            **{f"sha256:{name}": file_digest(weights[name]) for name in sorted(weights)},
        }

    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of the files."""
        digest = hashlib.sha256()
        for name in sorted(self.files):
            digest.update(f"{name}\0{file_digest(self.files[name])}\0".encode())
        return digest.hexdigest()


def find_checkpoint(
    model: str, wanted: Sequence[Names], *, revision: str = "main", option: str = "backbone.model", gated: bool = False
) -> Checkpoint:
    """Find files of a model in a folder, in the hub's cache, or on the hub (then they are downloaded).

    Args:
        model: folder, or hub id such as ``segmind/SSD-1B``.
        wanted: for each file its names, of which the first that exists is taken.
        revision: branch, tag or commit of the hub; a folder has none, whatever is asked for.
        option: the override that points at a folder, for the error.
        gated: access has to be asked for on the hub, for the error.

    Raises:
        UserError: files are missing (all of them are named, with the command that fetches them), the model is gated
            and there is no access to it, or the revision can't be one of the hub.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        names, missing = _choose(wanted, _files_in(folder, wanted))
        if missing:
            raise UserError(
                f"no {_listed(missing)} in this folder",
                str(folder.absolute()),
                f"copy the missing files there, or point {option} at a complete folder or a hub id",
            )
        found = {name: folder / name for name in names}
        snapshot = _SNAPSHOT.search(folder.absolute().as_posix())
        if snapshot is None:
            return Checkpoint(model, "", found)
        owner, name, commit = snapshot.groups()
        return Checkpoint(f"{owner}/{name}", commit, found)
    if not is_hub_id(model):
        raise UserError("no such folder, and no hub id", model, f"{option}=DIR, or {option}=OWNER/MODEL")
    if not _REVISION.fullmatch(revision):
        what, where = f"{revision!r} is no revision of the hub", _pin(option, model, revision)
        raise UserError(what, where, f"{_pin(option, model, 'main')}, or a commit")
    return _from_hub(model, wanted, revision, option, gated)


def _from_hub(model: str, wanted: Sequence[Names], revision: str, option: str, gated: bool) -> Checkpoint:
    """From the cache where it has all files, else of what the hub lists, all at the commit that the revision is now."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    snapshots = _snapshots(model)
    folder = snapshots.get(revision)
    names, missing = _choose(wanted, _files_in(folder, wanted))
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
    if not reason and not _downloads_allowed.get():
        reason = "not downloaded yet"
    if missing and not reason:
        try:
            listed = HfApi().model_info(model, revision=revision, timeout=_PATIENCE_S).siblings or []
            names, lacking = _choose(wanted, {file.rfilename for file in listed}, preferred=names)
            if lacking:
                missing, reason = lacking, "the hub has no such file in this model"
            else:
                folder, missing = Path(snapshot_download(model, revision=revision, allow_patterns=names)), []
        except GatedRepoError as error:
            raise UserError(
                f"{model} is gated: its owners give access to those who ask",
                f"https://huggingface.co/{model}",
                f"ask there, then `hf auth login`; or point {option} at a folder that has {_listed(wanted)}",
            ) from error
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise UserError(
                f"the hub has no {model} at revision {revision} (or it is private)",
                f"https://huggingface.co/{model}",
                f"check the name and the revision ({_pin(option, model, 'main')} is the newest), "
                f"`hf auth login` for a private model, or {option}=DIR",
            ) from error
        except Exception as error:  # whatever the client's transport raises
            reason = f"the hub can't be reached ({_reason(error)})"
    if folder is not None and not missing:
        return Checkpoint(model, folder.name, {name: folder / name for name in names})
    asked = f" (gated: ask for access at https://huggingface.co/{model}, then `hf auth login`)" if gated else ""
    at = "" if revision == "main" else revision
    # Where the repository can't be listed, both formats are named: `hf download` passes over what is not there.
    fetched = [name for names in missing for name in names if name == names[0] or name.endswith(".bin")]
    command = f"hf download {model} {' '.join(fetched)}" + (f" --revision {at}" if at else "")
    all_of_many = len(missing) == len(wanted) > 3  # the command lists them
    elsewhere = _cached_elsewhere(snapshots, model, wanted, revision, option)
    raise MissingWeightsError(
        f"{f'all {len(missing)} files' if all_of_many else _listed(missing)} of {model} missing"
        + (f" at {at}" if at else ""),
        f"{constants.HF_HUB_CACHE}: {reason}",
        (f"{elsewhere}; or " if elsewhere else "")
        + f"`{command}` where there is network, or {option}=DIR, a folder that has them{asked}",
        model=model,
        command=command,
        gated=gated,
        elsewhere=elsewhere,
    )


def _snapshots(model: str) -> dict[str, Path]:
    """Folders of the hub's cache that hold files of a model, by branch, tag and commit."""
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    found = {folder.name: folder for folder in (repository / "snapshots").glob("*")}
    for ref in (repository / "refs").rglob("*"):
        with suppress(OSError, ValueError, KeyError):  # a folder, a damaged file, or a commit that is not here
            found[ref.relative_to(repository / "refs").as_posix()] = found[ref.read_text().strip()]
    return found


def _files_in(folder: Path | None, wanted: Sequence[Names]) -> set[str]:
    """Wanted files of a folder."""
    return {name for names in wanted for name in names if folder is not None and (folder / name).is_file()}


def _choose(
    wanted: Sequence[Names], files: Collection[str], preferred: Collection[str] = ()
) -> tuple[list[str], list[Names]]:
    """Of each wanted file the first of its names that is there, a preferred one before all; and what is not there."""
    names: list[str] = []
    missing: list[Names] = []
    for own in wanted:
        there = sorted((name for name in own if name in files), key=lambda name: name not in preferred)
        names += there[:1]
        missing += [] if there else [own]
    return names, missing


def _cached_elsewhere(
    snapshots: Mapping[str, Path], model: str, wanted: Sequence[Names], revision: str, option: str
) -> str:
    """At which other revision the cache has all files, and the override that takes them; empty if at none."""
    complete = [name for name, folder in snapshots.items() if not _choose(wanted, _files_in(folder, wanted))[1]]
    if not complete:
        return ""
    # A branch or tag says more than its commit.
    name = min(complete, key=lambda name: (name != "main", name == snapshots[name].name, name))
    commit = snapshots[name].name
    at = commit[:7] if name == commit else f"{name} ({commit[:7]})"
    return f"the cache has them at {at}: {_pin(option, model, name)} takes these"


def _pin(option: str, model: str, revision: str) -> str:
    """The override that says at which revision the model of an option is read."""
    group, _, name = option.rpartition(".")
    return f"{group}.revision={revision}" if name == "model" else f"{option}={model}@{revision}"


@contextmanager
def blaming(what: str, where: str | Path, hint: str) -> Iterator[None]:
    """Whatever a library raises of damaged files, as a user error.

    Args:
        what: such as ``the weights can't be read``; the library's own words follow in brackets.
        where, hint: as of `UserError`.
    """
    try:
        yield
    except Exception as error:
        raise UserError(f"{what} ({_reason(error)})", str(where), hint) from error


def read_transformer(network: str, weights: Path, hint: str, **settings: Any) -> Any:
    """A network of transformers from the folder of its weights, in evaluation mode.

    Args:
        network: name of its class.
        weights: the file that holds them, for the error.
        hint: what to do where they are damaged.
        settings: others of ``from_pretrained``.

    Raises:
        UserError: the weights can't be read, or are not those that the network has.
    """
    import transformers

    with blaming("the weights can't be read", weights, hint), quiet_transformers():
        found, report = getattr(transformers, network).from_pretrained(
            weights.parent,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
            **settings,
        )
    wrong = sorted(report["missing_keys"]) + sorted(name for name, *_ in report["mismatched_keys"])
    if wrong:
        what = f"{len(wrong)} weights are missing or of another shape than config.json says: {wrong[0]} …"
        raise UserError(what, str(weights), hint)
    return found


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; a large file of the hub's cache is stored under it and need not be read."""
    blob = path.resolve()
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    state = blob.stat()
    return _digest_of(blob, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_of(path: Path, size: int, changed_ns: int) -> str:
    """Once a process for a file that keeps its size and time of change: the cells of a sweep ask again and again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A config file.

    Raises:
        UserError: it can't be read, or holds no JSON object.
    """
    with blaming(f"{path.name} can't be read as JSON", path, "fetch the file again"):
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("no object")
    return values


def read_config(path: Path, known: Collection[str], refusal: str) -> Any:
    """A config.json as transformers reads it, which knows the defaults.

    Args:
        path: of the file.
        known: values of ``model_type`` that are taken.
        refusal: what is wrong with another, behind its name.

    Raises:
        UserError: the file can't be read or used, or is of another type.
    """
    from transformers import CONFIG_MAPPING

    values = read_json(path)
    kind = values.get("model_type")
    if kind not in known:
        raise UserError(f"model_type {kind!r} {refusal}", str(path), did_you_mean(str(kind), known))
    if kind not in CONFIG_MAPPING:
        what = f"transformers {metadata.version('transformers')} is older than model_type {kind!r}"
        raise UserError(what, str(path), "pip install --upgrade transformers")
    with blaming(f"{path.name} can't be used", path, "fetch the file again"), quiet_transformers():
        return CONFIG_MAPPING[kind].from_dict(values)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within this, transformers shows no progress and does not list the weights that it leaves unread."""
    from transformers.utils import logging

    verbosity, shows_progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_progress:
            logging.enable_progress_bar()


def _listed(wanted: Sequence[Names]) -> str:
    """Each file by its preferred name, and what may stand in for it."""
    return ", ".join(names[0] + (f" (or {names[1].rpartition('/')[2]})" if len(names) > 1 else "") for names in wanted)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
