"""What turns the pages as they lie in the repository into those of the site; mkdocs calls the functions by their names.

Links in a page are those of a checkout, so that they work on a code host: to pages, and to code and options outside
docs/. A link to what the site shows becomes one of the site, any other one of the host, whose address is in
pyproject.toml.
"""

import logging
import posixpath
import re
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

_log = logging.getLogger("mkdocs.hooks")
ROOT = Path(__file__).parents[2]
# Pages of the site that lie outside docs/.
ELSEWHERE = {"overview.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
_CODE = r"(?P<code>^ *```.*?^ *```|`[^`\n]+`)"
_LINK = re.compile(_CODE + r"|\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)", re.DOTALL | re.MULTILINE)
_ITEM = re.compile(r"^( *)(?:[*-]|\d+\.) ")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Addresses from pyproject.toml, and names of headings as code hosts make them."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    # Not as `repo_url`, of which each page would ask the host how many people like it.
    config.extra["social"] = [{"icon": "fontawesome/brands/git-alt", "link": urls["Repository"], "name": "Source"}]
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages that lie outside docs/."""
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of the site, and empty lines where Python-Markdown needs them."""
    shown = {ELSEWHERE.get(name, f"docs/{name}"): name for name in files.src_uris}
    here = page.file.src_uri
    source = ELSEWHERE.get(here, f"docs/{here}")

    def site_link(match: re.Match[str]) -> str:
        if match["code"]:
            return match[0].replace("\\|", "|")  # which code hosts want in tables
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["path"]))
        if target in shown and not target.endswith(".ipynb"):
            link = posixpath.relpath(shown[target], posixpath.dirname(here) or ".")
        else:
            if not (ROOT / target).exists():
                _log.warning("%s links to %s, which is not there", source, target)
            link = f"{config.extra['social'][0]['link']}/{'tree' if (ROOT / target).is_dir() else 'blob'}/main/{target}"
        return f"]({link}{match['anchor'] or ''})"

    return _LINK.sub(site_link, _spaced(markdown))


def _spaced(markdown: str) -> str:
    """With empty lines where Python-Markdown needs them and code hosts do not (before lists and tables that follow text
    and after code), and with lists in lists four spaces in."""
    lines: list[str] = []
    outer: int | None = None  # indent of the list that the line is in
    in_code = False
    for line in markdown.splitlines():
        item, before = _ITEM.match(line), lines[-1] if lines else ""
        fence = line.lstrip().startswith("```")
        if in_code or fence:
            in_code ^= fence
            lines.append(line)
            continue
        outer = None if not line else outer
        starts_list = item is not None and outer is None
        starts_table = line.startswith("|") and not before.startswith("|")
        if line and before and (starts_list or starts_table or before.lstrip() == "```"):
            lines.append("")
        if item is not None:
            outer = len(item[1]) if outer is None else outer
            line = f"    {line.lstrip()}" if len(item[1]) > outer + 1 else line
        lines.append(line)
    return "\n".join(lines)
