import sys

import torch

from diffcut_bench.environment import installed_packages


def test_torch_is_named_with_its_build():
    found = installed_packages()
    assert found["torch"] == torch.__version__
    assert (found.get("cuda"), found.get("hip")) == (torch.version.cuda, torch.version.hip)


def test_the_build_is_read_without_importing_torch(tmp_path, monkeypatch):
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError")
    (package / "version.py").write_text("__version__ = '2.14.1+cu130'\ncuda: str | None = '13.0'\nhip = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch")
    found = installed_packages()
    assert (found["torch"], found["cuda"]) == ("2.14.1+cu130", "13.0")
    assert "hip" not in found
