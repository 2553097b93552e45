from pathlib import Path

from benchmarks.install_sizes import Weight, table, weigh


def install(site: Path, name: str, files: dict[str, int]) -> None:
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    for file, size in files.items():
        (site / file).write_bytes(bytes(size))
    (folder / "RECORD").write_text("".join(f"{file},,\n" for file in (*files, "gone.py")))


def test_files_of_each_package_count_once_and_torchs_apart(tmp_path):
    for name, size in {"torch": 100, "nvidia-cublas": 20, "torchmetrics": 3, "numpy": 4}.items():
        install(tmp_path, name, {f"{name}.py": size})
    (tmp_path / "nobodys.py").write_bytes(bytes(1000))
    assert weigh(tmp_path) == Weight(packages=4, bytes=127, torch=120)


def test_an_extra_is_one_of_this_checkout():
    asked = []

    def install(requirement: str) -> Weight:
        asked.append(requirement)
        return Weight(3, 5_000_000, 4_000_000)

    found = table(["data"], install, "")
    root = Path(__file__).parents[2]
    assert asked == [str(root), f"{root}[data]"]
    assert found.rows == (("diffcut_bench", "3", "5", "1"), ("diffcut_bench[data]", "3", "5", "1"))
