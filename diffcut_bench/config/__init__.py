"""From command-line overrides to a checked `RunConfig`, and to the objects that its options name. Hydra lives here."""

from diffcut_bench.config.overrides import (
    GROUPS,
    expand_sweep,
    is_launcher,
    is_sweeper,
    known_options,
    part_of_composed,
    quote_if_needed,
    setting_of_option,
    show_composed,
    split_swept,
)
from diffcut_bench.config.run_config import RunConfig, build_protocol, instantiate, load_config
from diffcut_bench.config.search import quoted, searching
from diffcut_bench.config.trust import option_words, trusted
from diffcut_bench.extensions import is_searchpath
from diffcut_bench.paths import conf_dir

__all__ = [
    "GROUPS",
    "RunConfig",
    "build_protocol",
    "conf_dir",
    "expand_sweep",
    "instantiate",
    "is_launcher",
    "is_searchpath",
    "is_sweeper",
    "known_options",
    "load_config",
    "option_words",
    "part_of_composed",
    "quote_if_needed",
    "quoted",
    "searching",
    "setting_of_option",
    "show_composed",
    "split_swept",
    "trusted",
]
