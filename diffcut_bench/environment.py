"""The machine of a run: its device, and what a result records of it."""

import contextlib
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from diffcut_bench.errors import UserError
from diffcut_bench.store import Environment

_PACKAGES = (
    "diffcut_bench",
    "torch",
    "numpy",
    "scipy",
    "scikit-image",
    "pillow",
    "datasets",
    "diffusers",
    "transformers",
    "safetensors",
    "torchmetrics",
    "hydra-core",
    "pydensecrf2",
)


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """``auto`` is the accelerator where there is one, otherwise the CPU.

    Args:
        name: ``auto``, or a device of torch.
        local_rank: of a process among several on this machine, which share its accelerators in turn; None: alone.

    Raises:
        UserError: no such device here.
    """
    here = devices_here()
    if name == "auto":
        name = here[-1].type
    try:
        device = torch.device(name)
        if device in here[1:] and local_rank is not None:
            device = torch.device(device.type, local_rank % torch.accelerator.device_count())
            torch.accelerator.set_device_index(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        what, where = f"device {name!r} is not available", f"devices here: {', '.join(map(str, here))}"
        raise UserError(what, where, "use device=auto or device=cpu") from error
    return device


def devices_here() -> list[torch.device]:
    """The CPU, and the accelerator where there is one."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return [torch.device("cpu"), *([accelerator] if accelerator else [])]


def device_type(name: str) -> str:
    """Type of a device, whether it is on this machine or not; ``auto`` as in `choose_device`.

    Raises:
        UserError: torch knows no device of this name.
    """
    if name != "auto":
        with contextlib.suppress(RuntimeError):
            return torch.device(name).type
    return choose_device(name).type  # of an unknown name it raises, and says which devices there are


def is_here(name: str) -> bool:
    """Whether `choose_device` finds a device."""
    try:
        choose_device(name)
    except UserError:
        return False
    return True


def environment(device: torch.device, seed: int, noise_generator: str) -> Environment:
    """Versions, device and commit for a result; ``noise_generator`` is ``none`` if the backbone draws no noise."""
    return Environment(installed_packages(), device_name(device), _git_state(), seed, noise_generator)


def installed_packages() -> dict[str, str]:
    """Versions of the packages that numbers depend on; torch with its build, its ``cuda`` or ``hip``."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    # The metadata of torch may leave its build out: 2.14.1, where torch itself says 2.14.1+cu130.
    build = {"torch": str(torch.__version__), "cuda": torch.version.cuda, "hip": torch.version.hip}
    return versions | {name: text for name, text in build.items() if text}


def device_name(device: torch.device) -> str:
    """The accelerator's model, or ``cpu`` with its number of threads."""
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    module = torch.get_device_module(device)
    name = module.get_device_name(device) if hasattr(module, "get_device_name") else ""
    return f"{device} {name}".strip()


def shown_device(device: torch.device) -> str:
    """`device_name` for people; results keep the form that they have always had."""
    return device_name(device).replace("(1 threads)", "(1 thread)")


def matrix_rate(dtype: torch.dtype, device: torch.device, *, tf32: bool = False) -> float:
    """Floating-point operations a second of a product of two square matrices, of 8192 rows on an accelerator and 256 on
    the CPU: the best of ten.

    Args:
        dtype: of the matrices.
        device: that multiplies them.
        tf32: float32 matrices may be multiplied in TF32, where the device has it.
    """
    size = 256 if device.type == "cpu" else 8192
    # Random numbers: zeros are multiplied faster by some accelerators.
    first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    seconds = []
    try:
        for _ in range(12):  # two to warm up
            synchronize(device)
            start = time.perf_counter()
            torch.mm(first, second)
            synchronize(device)
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_float32_matmul_precision(precision)
    return 2 * size**3 / min(seconds[2:])


def synchronize(device: torch.device | None) -> None:
    """Wait until an accelerator has done all that it was asked for."""
    if device is not None and device.type != "cpu":
        torch.accelerator.synchronize(device)


def _git_state() -> dict[str, Any]:
    """Commit of the checkout that this package runs from, and whether it has changes."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy inside some other repository is not that repository's.
    if git("ls-files", "--error-unmatch", "environment.py") is None:
        return {"commit": None, "dirty": False}
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
