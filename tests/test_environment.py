import torch

from diffcut_bench.environment import installed_packages


def test_torch_is_named_with_its_build():
    found = installed_packages()
    assert found["torch"] == torch.__version__
    assert (found.get("cuda"), found.get("hip")) == (torch.version.cuda, torch.version.hip)


def test_the_build_is_torchs_own_and_not_of_its_metadata(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = installed_packages()
    assert (found["torch"], found["cuda"]) == ("2.14.1+cu130", "13.0")
