"""Pretrained weights on disk: a folder in the hub's layout, or the hub's cache, which is filled on demand."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from diffcut_bench.errors import UserError

# Names of one file, the preferred one first: a checkpoint with half-precision weights need not send the others too.
Names = Sequence[str]

_WEIGHTS = (".safetensors", ".bin")
_REVISION = re.compile(r"\w(?!.*\.\.)[\w./-]*")  # of the hub: a branch, tag or commit
_SNAPSHOT = re.compile(r"/models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40})(?=/|$)")  # of the hub's cache

_downloads_allowed: ContextVar[bool] = ContextVar("downloads_allowed", default=True)
_PATIENCE_S = 5.0


class MissingWeightsError(UserError):
    """Files of a model are not on this machine.

    Attributes:
        model: hub id.
        command: what fetches them, where there is network.
        gated: access has to be asked for first.
        elsewhere: what the cache has them at instead, and the override that takes these; empty if there is nothing.
        says_more: the message is of something else that is missing as well, such as the library that reads them.
    """

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
        says_more: bool = False,
    ) -> None:
        super().__init__(what, where, hint)
        self.model, self.command, self.gated, self.says_more = model, command, gated, says_more
        self.elsewhere = elsewhere


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
    model: str,
    wanted: Sequence[Names],
    *,
    revision: str = "main",
    option: str = "backbone.model",
    gated: bool = False,
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
        found = {name: folder / name for names in wanted for name in _first_file(folder, names)}
        missing = [names for names in wanted if not any(name in found for name in names)]
        if missing:
            raise UserError(
                f"no {_listed(missing)} in this folder",
                str(folder.absolute()),
                f"copy the missing files there, or point {option} at a complete folder or a hub id",
            )
        snapshot = _SNAPSHOT.search(folder.absolute().as_posix())
        if snapshot is not None and not snapshot.string[snapshot.end() :]:  # `hf download` prints such a folder
            owner, name, commit = snapshot.groups()
            return Checkpoint(f"{owner}/{name}", commit, found)
        return Checkpoint(model, "", found)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model) or model.startswith("."):
        raise UserError("no such folder, and no hub id", model, f"{option}=DIR, or {option}=OWNER/MODEL")
    if not _REVISION.fullmatch(revision):
        what, where = f"{revision!r} is no revision of the hub", _pin(option, model, revision)
        raise UserError(what, where, f"{_pin(option, model, 'main')}, or a commit")
    return _from_hub(model, wanted, revision, option, gated)


def _from_hub(model: str, wanted: Sequence[Names], revision: str, option: str, gated: bool) -> Checkpoint:
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    found: dict[str, Path] = {}
    missing: list[Names] = []
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
    if not _downloads_allowed.get():
        reason = reason or "not downloaded yet"
    for names in wanted:
        for name in names:
            cached = try_to_load_from_cache(model, name, revision=revision)
            if isinstance(cached, str):
                found[name] = Path(cached)
                break
        else:
            reason = reason or _unreachable()
            for name in names if not reason else ():
                try:
                    found[name] = Path(hf_hub_download(model, name, revision=revision))
                    break
                except LocalEntryNotFoundError as error:
                    reason = f"the hub can't be reached ({_first_line(error.__cause__ or error)})"
                    break
                except EntryNotFoundError:
                    continue
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
                except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
                    reason = f"the hub can't be reached ({_first_line(error)})"
                    break
            if not any(name in found for name in names):
                missing.append(names)
    if missing:
        asked = f" (gated: ask for access at https://huggingface.co/{model}, then `hf auth login`)" if gated else ""
        at = "" if revision == "main" else f" --revision {revision}"
        command = f"hf download {model} {' '.join(names[0] for names in missing)}{at}"
        all_of_many = len(missing) == len(wanted) > 3  # the command lists them
        elsewhere = _cached_elsewhere(Path(constants.HF_HUB_CACHE), model, wanted, revision, option)
        raise MissingWeightsError(
            f"{f'all {len(missing)} files' if all_of_many else _listed(missing)} of {model} missing"
            + (f" at {revision}" if at else ""),
            f"{constants.HF_HUB_CACHE}: {reason or 'the hub has no such file in this model'}",
            (f"{elsewhere}; or " if elsewhere else "")
            + f"`{command}` where there is network, or {option}=DIR, a folder that has them{asked}",
            model=model,
            command=command,
            gated=gated,
            elsewhere=elsewhere,
        )
    # Last is what was found last: a branch that has moved between two downloads is read anew at where it stands now.
    commits = [snapshot[3] for path in found.values() if (snapshot := _SNAPSHOT.search(path.as_posix()))]
    if len(set(commits)) > 1:
        return _from_hub(model, wanted, commits[-1], option, gated)
    return Checkpoint(model, commits[-1] if commits else revision, found)


def _cached_elsewhere(cache: Path, model: str, wanted: Sequence[Names], revision: str, option: str) -> str:
    """At which other revision the cache has all files, and the override that takes them; empty if at none."""
    repository = cache / f"models--{model.replace('/', '--')}"
    refs, snapshots = repository / "refs", repository / "snapshots"
    try:
        found = {ref.relative_to(refs).as_posix(): ref.read_text().strip() for ref in refs.rglob("*") if ref.is_file()}
        # What was downloaded by its commit no branch or tag stands for.
        found |= {folder.name: folder.name for folder in snapshots.glob("*") if folder.name not in found.values()}
    except (OSError, ValueError):  # a cache that can't be read has nothing
        return ""
    for name in sorted(found, key=lambda name: (name != "main", name)):
        commit = found[name]
        if name != revision and commit and all(_first_file(snapshots / commit, names) for names in wanted):
            at = commit[:7] if name == commit else f"{name} ({commit[:7]})"
            return f"the cache has them at {at}: {_pin(option, model, name)} takes these"
    return ""


def _pin(option: str, model: str, revision: str) -> str:
    """The override that says at which revision the model of an option is read."""
    group, _, name = option.rpartition(".")
    return f"{group}.revision={revision}" if name == "model" else f"{option}={model}@{revision}"


@cache
def _unreachable() -> str:
    """Why the hub can't be reached; empty if it can. Asked once a process: the hub's client retries for half a minute
    for each file."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE_S)
    except Exception as error:  # whatever the client's transport raises
        return f"the hub can't be reached ({_first_line(error)})"
    return ""


def weight_names(folder: str, stem: str, variant: str | None = None) -> Names:
    """Names that a component's weights may have: of the variant first, safetensors only.

    Args:
        folder: of the component, such as ``unet``; empty for the top.
        stem: ``diffusion_pytorch_model`` or ``model``.
        variant: such as ``fp16``; None for the plain files.
    """
    prefix = f"{folder}/" if folder else ""
    plain = f"{prefix}{stem}.safetensors"
    return (f"{prefix}{stem}.{variant}.safetensors", plain) if variant else (plain,)


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
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            return values
        reason = "no object"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise UserError(f"{path.name} can't be read as JSON: {reason}", str(path), "fetch the file again")


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


def _first_file(folder: Path, names: Names) -> list[str]:
    return [name for name in names if (folder / name).is_file()][:1]


def _listed(wanted: Sequence[Names]) -> str:
    """Each file by its preferred name, and what may stand in for it."""
    return ", ".join(names[0] + (f" (or {names[1].rpartition('/')[2]})" if len(names) > 1 else "") for names in wanted)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
