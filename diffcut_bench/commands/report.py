"""``diffcut-bench report``: tables and one HTML page from the results of an output folder."""

import argparse
from functools import partial

from diffcut_bench.commands.terminal import say, warn
from diffcut_bench.commands.words import find_cell, output_folder
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import make_report, render_page
from diffcut_bench.store import write_atomically


def report(options: argparse.Namespace) -> int:
    """Write ``reports/index.html`` and ``reports/tables/`` into an output folder; what can't be read is named.

    A result is data: nothing that it says is run, and one that is no good leaves the others alone.

    Raises:
        UserError: there are no results.
    """
    if options.gallery < 0:
        raise UserError("--gallery takes a number from 0 on", f"--gallery {options.gallery}", "such as --gallery 3")
    folder, overrides = output_folder(options.overrides)
    beside = [find_cell(name, folder)[0] for name in options.beside]
    page = make_report(folder, options.gallery, overrides, say, partial(warn, style="yellow"), beside)
    index = folder / "reports" / "index.html"
    write_atomically(index, render_page(page))
    say(f"page     {index}")
    for table in page.tables():
        table.write(index.parent / "tables")
        say(f"tables   {index.parent / 'tables' / table.stem}.md .tex .csv")
    return 0
