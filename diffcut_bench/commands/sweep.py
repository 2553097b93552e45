"""``diffcut-bench run -m``: every combination of comma lists and ranges, in as few passes over the images as can be."""

import itertools
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from diffcut_bench.commands.passes import run_with_progress, say_failures
from diffcut_bench.commands.terminal import console, errors, say
from diffcut_bench.config import RunConfig, build_protocol, conf_dir, load_config, quote_if_needed, quoted
from diffcut_bench.distributed import workers
from diffcut_bench.errors import UserError
from diffcut_bench.experiment import pass_key
from diffcut_bench.reporting import results_table
from diffcut_bench.running import FinishedCell
from diffcut_bench.store import Result, write_atomically

_READ_FROM_TREE = ("tau", "label_codes")  # settings that do not change the recursion
_PASS = "sweep_pass"  # the key by which a launcher's job is told its pass


def sweep(overrides: list[str]) -> int:
    """Every combination; cells that one pass over the images can score are one job of Hydra's launcher.

    All of them are checked before the first runs.
    """
    cells = expand_sweep(overrides)
    passes: dict[str, list[dict[str, object]]] = {}
    output_dir = ""
    for cell in cells:
        config = load_config(cell)
        build_protocol(config.protocol)
        passes.setdefault(pass_key(config), []).append({"overrides": cell, "config": config.to_dict()})
        output_dir = output_dir or config.output_dir
    folder = workers().on_leader(lambda: _new_folder(Path(output_dir), list(passes.values())))
    over = f"{len(passes)} pass{'es' if len(passes) > 1 else ''} over images"
    say(f"sweep of {len(cells)} cells in {over}; a pass shares reading and features")
    task = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(_sweep_pass)
    before = sys.argv
    sys.argv = ["diffcut-bench", "--multirun", f"hydra.sweep.dir={quoted(str(folder))}"]
    sys.argv += [quote_if_needed(override) for override in overrides if override.startswith("hydra")]
    sys.argv += [f"+{_PASS}={','.join(str(number) for number in range(len(passes)))}"]
    try:
        task()
    except SystemExit as ended:
        if ended.code:
            raise UserError("Hydra could not start the sweep; it says why above", str(folder), "see above") from ended
    finally:
        sys.argv = before
    return _say_sweep(folder, len(cells))


def _new_folder(output_dir: Path, passes: Sequence[Sequence[dict[str, object]]]) -> Path:
    """A sweep's own folder, which tells every job its cells."""
    folder = output_dir / "sweeps" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    write_atomically(folder / "cells.json", json.dumps(passes, indent=1) + "\n")
    return folder


def _say_sweep(folder: Path, cells: int) -> int:
    """The table of a sweep, and what failed; 2 where something did."""
    records = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
    finished = [Path(record["folder"]) for record in records if "folder" in record]
    results = [(path, Result.from_json((path / "result.json").read_text())) for path in finished]
    if results:
        results_table(results).print(console)
        say_failures([result for _, result in results])
    for record in records:
        if "error" in record:
            errors.print(f"cell {' '.join(record['overrides'])}\n{record['error']}", markup=False, soft_wrap=True)
    return 2 if len(finished) < cells else 0


def _sweep_pass(composed: DictConfig) -> None:
    """The cells of one pass, in whatever process the launcher chose; how each ended is noted in the sweep's folder."""
    folder = Path(HydraConfig.get().sweep.dir)
    passes = json.loads((folder / "cells.json").read_text())
    number = int(composed[_PASS])
    cells: list[list[str]] = [cell["overrides"] for cell in passes[number]]
    first = sum(len(before) for before in passes[:number])
    shared = [override for override in cells[0] if all(override in cell for cell in cells)]
    say(f"pass {number + 1} of {len(passes)}, {len(cells)} cells: {' '.join(shared)}")
    ended: Sequence[FinishedCell | UserError]
    try:
        configs = [RunConfig(**cell["config"]) for cell in passes[number]]
        say(_shared_work(configs))
        ended = run_with_progress(configs)
    except UserError as error:
        ended = [error] * len(cells)
    except Exception as error:  # the other passes go on; the error is listed at the end
        crashed = UserError(f"{type(error).__name__}: {error}", " ".join(cells[0]), "run this cell alone to see more")
        ended = [crashed] * len(cells)
    for place, (cell, end) in enumerate(zip(cells, ended, strict=True)):
        record: dict[str, object] = {"overrides": cell}
        if isinstance(end, UserError):
            record["error"] = str(end)
        else:
            record["folder"] = str(end.folder.absolute())
            own = " ".join(override for override in cell if override not in shared) or "as above"
            say(f"cell {first + place + 1}: {own}{', skipped: finished before' if end.skipped else ''}")
        if workers().leads:
            write_atomically(folder / "cells" / f"{first + place:05d}.json", json.dumps(record, indent=1) + "\n")


def _shared_work(configs: Sequence[RunConfig]) -> str:
    """What the cells of a pass do once for all of them."""
    trees = {json.dumps({n: v for n, v in c.segmenter.items() if n not in _READ_FROM_TREE}) for c in configs}
    if all("tau" in config.segmenter for config in configs) and len(trees) < len(configs):
        return f"  once an image: reading, features, cosines, and {len(trees)} recursions, from which every tau is read"
    return "  once an image: reading and features"


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Overrides of every cell: the product of comma lists, ``choice()`` and ``range()``, in Hydra's order.

    Raises:
        UserError: an override can't be read.
    """
    alternatives = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(quote_if_needed(text))
            if override.is_sweep_override():
                key = override.get_key_element()
                alternatives.append([f"{key}={value}" for value in override.sweep_string_iterator()])
            else:
                alternatives.append([text])
        except HydraException as error:
            raise UserError(f"{text!r} is no override", text, "write overrides as key=value or key=a,b") from error
    return [list(cell) for cell in itertools.product(*alternatives)]
