"""``diffcut-bench run -m``: every combination of comma lists and ranges, in as few passes over the images as can be."""

import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig

from diffcut_bench.commands.jobs import launched_job, launching
from diffcut_bench.commands.passes import TerminalObserver, open_tracker, say_failures, tell
from diffcut_bench.commands.terminal import console, errors, say
from diffcut_bench.config import (
    RunConfig,
    build_protocol,
    conf_dir,
    expand_sweep,
    is_launcher,
    is_searchpath,
    load_config,
    quote_if_needed,
    quoted,
)
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.interruption import raise_if_interrupted
from diffcut_bench.reporting import results_table, sweep_figures, write_figure
from diffcut_bench.scoring.cell import FinishedCell
from diffcut_bench.scoring.passes import pass_key, run_cells
from diffcut_bench.scoring.workers import workers
from diffcut_bench.store import Result, cell_key, read_result, write_atomically

_READ_FROM_TREE = ("tau", "label_codes")  # settings that do not change the recursion
_BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # Hydra's own: one pass after the other, in here
_PASS = "sweep_pass"  # the key by which a launcher's job is told its pass
# Our yaml of a launcher has the plugin's name, so Hydra fills it up from the plugin's own, and warns that it does.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against")


def sweep(overrides: list[str]) -> int:
    """Every combination; cells that one pass over the images can score are one job of Hydra's launcher.

    All of them are checked before the first runs. Of cells with equal settings (``tau=0.5,0.50``) the first is run.
    """
    own = [quote_if_needed(word) for word in overrides if is_launcher(word) or is_searchpath(word)]
    _check_launcher(own)
    expanded = expand_sweep([word for word in overrides if not is_launcher(word)])
    different: dict[str, tuple[list[str], RunConfig]] = {}
    for cell in expanded:
        config = load_config(cell)
        build_protocol(config.protocol)
        different.setdefault(cell_key(config.to_dict()), (cell, config))
    cells = [cell for cell, _ in different.values()]
    passes: dict[str, list[dict[str, object]]] = {}
    for cell, config in different.values():
        passes.setdefault(pass_key(config), []).append({"overrides": cell, "config": config.to_dict()})
    folder = _new_folder(Path(next(iter(different.values()))[1].output_dir), list(passes.values()))
    twins = len(expanded) - len(cells)
    say(
        f"sweep of {_counted(len(cells), 'cell')} in {_counted(len(passes), 'pass', 'es')} over images; "
        f"a pass shares reading and features{f'; {twins} more equal one of these' if twins else ''}"
    )
    task = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(_sweep_pass)
    before = sys.argv
    # Absolute: a cluster's machines work elsewhere.
    sys.argv = ["diffcut-bench", "--multirun", f"hydra.sweep.dir={quoted(str(folder.absolute()))}", *own]
    sys.argv += [f"+{_PASS}={','.join(str(number) for number in range(len(passes)))}"]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise what went wrong; we say it
    broken: Exception | SystemExit | None = None
    try:
        with launching():
            task()
    except (Exception, SystemExit) as error:
        raise_if_interrupted()
        broken = error
    finally:
        sys.argv = before
    return workers().on_leader(lambda: _say_sweep(folder, cells, broken))


def _check_launcher(overrides: Sequence[str]) -> None:
    """Refuse a launcher that is not known, not installed or not needed, before anything is started.

    Raises:
        UserError: there is one of these.
    """
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            target = str(compose("config", list(overrides), return_hydra_config=True).hydra.launcher._target_)
    except MissingConfigException as error:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        if group != "hydra/launcher":
            raise
        where, hint = f"{group}={name}", did_you_mean(name, error.options or ())
        raise UserError(f"unknown launcher {name}", where, hint) from error
    except HydraException as error:
        named = any(override.startswith("hydra/launcher=") for override in overrides)
        hint = "see conf/hydra/launcher/ for its keys" if named else "choose one first: hydra/launcher=joblib"
        raise UserError("the launcher has no such setting", " ".join(overrides), hint) from error
    if target == _BASIC:
        return
    if workers().count > 1:
        raise UserError("torchrun and a launcher would both start processes", target, "use one of the two")
    try:
        installed = importlib.util.find_spec(target.rpartition(".")[0]) is not None
    except ModuleNotFoundError:
        installed = False
    if not installed:
        raise UserError("this launcher is not installed", target, "pip install 'diffcut_bench[launchers]'")


def _new_folder(output_dir: Path, passes: Sequence[Sequence[dict[str, object]]]) -> Path:
    """A sweep's own folder, which tells every job its cells."""
    name = workers().on_leader(lambda: datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f"))
    folder = output_dir / "sweeps" / name
    # By every process: they may be on machines without a common disk.
    write_atomically(folder / "cells.json", json.dumps(passes, indent=1) + "\n")
    return folder


def _say_sweep(folder: Path, cells: Sequence[Sequence[str]], broken: BaseException | None = None) -> int:
    """The table of a sweep, and what failed; 2 where something did.

    Args:
        folder: of the sweep.
        cells: overrides of each.
        broken: what ended the launcher early.

    Raises:
        UserError: it ended before any cell did.
    """
    records = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
    finished = [Path(record["folder"]) for record in records if "folder" in record]
    results = [(path, read_result(path)) for path in finished]
    if results:
        results_table(results).print(console)
        say_failures([result for _, result in results])
        _draw_sweep(folder, [result for _, result in results])
    reason = " ".join(f"{type(broken).__name__}: {broken}".split()) if broken else "its job left no word"
    if broken and not records:
        raise UserError(f"the sweep ended early: {reason}", str(folder), "mend this, then run the same command again")
    known = [record["overrides"] for record in records]
    for cell in cells:
        if list(cell) not in known:
            lost = UserError(f"the job of this cell ended early: {reason}", str(folder), "the same command goes on")
            records.append({"overrides": cell, "error": str(lost)})
    for record in records:
        if "error" in record:
            errors.print(f"cell {' '.join(record['overrides'])}\n{record['error']}", markup=False, soft_wrap=True)
    return 2 if len(finished) < len(cells) else 0


def _draw_sweep(folder: Path, results: Sequence[Result]) -> None:
    """Curves and heat map of the numbers that were varied, into the sweep's folder and the tracker's books."""
    for drawn in sweep_figures(results):
        for path in write_figure(drawn.figure, folder, drawn.name):
            say(f"figure   {path}")
    asked = json.loads((folder / "cells.json").read_text())[0][0]["config"]  # a result found finished has an older one
    tracker = open_tracker(RunConfig(**asked))
    if tracker is not None:
        tell(lambda: tracker.log_sweep(folder.name, results))


def _sweep_pass(composed: DictConfig) -> None:
    """One pass, in whatever process the launcher chose."""
    launched = HydraConfig.get()
    with launched_job(Path(launched.runtime.cwd)) if launched.launcher._target_ != _BASIC else nullcontext():
        _score_pass(Path(launched.sweep.dir), int(composed[_PASS]))


def _score_pass(folder: Path, number: int) -> None:
    """The cells of one pass; how each ended is noted in the sweep's folder."""
    passes = json.loads((folder / "cells.json").read_text())
    cells: list[list[str]] = [cell["overrides"] for cell in passes[number]]
    first = sum(len(before) for before in passes[:number])
    shared = [override for override in cells[0] if all(override in cell for cell in cells)]
    everywhere = set.intersection(*(set(cell["overrides"]) for cells_of_pass in passes for cell in cells_of_pass))
    say(f"pass {number + 1} of {len(passes)}, {_counted(len(cells), 'cell')}: {' '.join(shared) or 'the default'}")
    ended: Sequence[FinishedCell | UserError]
    try:
        configs = [RunConfig(**cell["config"]) for cell in passes[number]]
        say(_shared_work(configs))
        ended = run_cells(configs, TerminalObserver(folder.name))
    except UserError as error:
        ended = [error] * len(cells)
    except Exception as error:  # the other passes go on; the error is listed at the end
        raise_if_interrupted()
        crashed = UserError(f"{type(error).__name__}: {error}", " ".join(cells[0]), "run this cell alone to see more")
        ended = [crashed] * len(cells)
    for place, (cell, end) in enumerate(zip(cells, ended, strict=True)):
        record: dict[str, object] = {"overrides": cell}
        if isinstance(end, UserError):
            record["error"] = str(end)
        else:
            record["folder"] = str(end.folder.absolute())
            own = " ".join(override for override in cell if override not in everywhere) or "as above"
            say(f"cell {first + place + 1}: {own}{', skipped: finished before' if end.skipped else ''}")
        if workers().leads:
            write_atomically(folder / "cells" / f"{first + place:05d}.json", json.dumps(record, indent=1) + "\n")


def _counted(number: int, what: str, plural: str = "s") -> str:
    return f"{number} {what}{'' if number == 1 else plural}"


def _shared_work(configs: Sequence[RunConfig]) -> str:
    """What the cells of a pass do once for all of them."""
    trees = {json.dumps({n: v for n, v in c.segmenter.items() if n not in _READ_FROM_TREE}) for c in configs}
    if all("tau" in config.segmenter for config in configs) and len(trees) < len(configs):
        return f"  once an image: reading, features, cosines, and {len(trees)} recursions, from which every tau is read"
    return "  once an image: reading and features"
