"""What turns the pages as they lie in the repository into those of the site; mkdocs calls the functions by their names.

Links in a page are those of a checkout, so that they work on a code host: to pages, and to code and options outside
docs/. A link to what the site shows becomes one of the site, any other one of the host, whose address is in
pyproject.toml.
"""

import posixpath
import re
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
# Pages of the site that lie outside docs/.
ELSEWHERE = {"overview.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
_CODE = r"(?P<code>^ *```.*?^ *```|`[^`\n]+`)"
_LINK = re.compile(_CODE + r"|\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)", re.DOTALL | re.MULTILINE)
# A list and a table may follow a line of text directly on a code host; Python-Markdown wants an empty line before them.
_BLOCK = re.compile(
    _CODE + r"|(?<=\n)(?P<line>(?! *(?:[*-]|\d+\.) |\||>|#|   |\n)[^\n]+\n)(?= ?(?:[*-]|\d+\.) |\|)",
    re.DOTALL | re.MULTILINE,
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Addresses from pyproject.toml, and names of headings as code hosts make them."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    config.repo_url = urls["Repository"]
    config.repo_name = config.repo_url.split("/", 3)[3]
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
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["path"]))
        if target in shown and not target.endswith(".ipynb"):
            link = posixpath.relpath(shown[target], posixpath.dirname(here) or ".")
        else:
            link = f"{config.repo_url}/{'tree' if (ROOT / target).is_dir() else 'blob'}/main/{target}"
        return f"]({link}{match['anchor'] or ''})"

    spaced = _BLOCK.sub(lambda match: match[0] if match["code"] else f"{match['line']}\n", markdown)
    return _LINK.sub(site_link, spaced)
