"""The environment report: what a number was computed with (the thesis's proposed standard, its Appendix A).

`report` gathers it, and every checkpoint and results file carries it. It names hardware, drivers, versions, seeds and
settings; it holds no path, user name, host name or address of the machine.
"""

from __future__ import annotations

import json as _json
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from kpm import __version__  # not the distribution's: a copy that is not installed has one too
from kpm.errors import UserError

# Vendors that build graphics boards, by PCI id: for machines without lspci (most containers).
_BOARD_VENDORS = {"10DE": "NVIDIA", "1028": "Dell", "1043": "ASUS", "1458": "Gigabyte", "1462": "MSI", "3842": "EVGA"}


@dataclass(frozen=True)
class Gpu:
    """One graphics processor; `memory` in GiB, `None` for what could not be found out."""

    name: str
    board: str | None = None
    memory: float | None = None
    vbios: str | None = None


@dataclass(frozen=True)
class Determinism:
    """The PyTorch settings that decide whether a run repeats bit by bit."""

    deterministic_algorithms: bool | None
    warn_only: bool | None
    cudnn_deterministic: bool | None
    cudnn_benchmark: bool | None
    cudnn_tf32: bool | None
    matmul_tf32: bool | None
    float32_matmul_precision: str | None
    cublas_workspace: str | None


@dataclass(frozen=True)
class Environment:
    """Everything Appendix A asks for, and seeds, threads, determinism and commit. Make one with `report`.

    `memory` is in GiB. `None` stands for "not there" or "could not be found out". `dirty` is true when the code
    (package, tests, project file) differs from `commit`.
    """

    os: str | None
    cpu: str | None
    architecture: str | None
    kernel: str | None
    glibc: str | None
    physical_cores: int | None
    logical_cores: int | None
    memory: float | None
    gpus: tuple[Gpu, ...]
    driver: str | None
    cuda: str | None
    cudnn: str | None
    python: str | None
    pip: str | None
    numpy: str | None
    torch: str | None
    fabric: str | None
    kpm: str | None
    commit: str | None
    dirty: bool | None
    threads: int | None
    interop_threads: int | None
    omp_num_threads: str | None
    determinism: Determinism
    seeds: dict[str, int]
    packages: dict[str, str]

    @property
    def hardware(self) -> str:
        """One line for tables, such as ``AMD EPYC 7343, 16 cores, 128 GiB; NVIDIA H200``."""
        parts = [self.cpu or self.architecture or "unknown CPU"]
        cores = self.physical_cores or self.logical_cores
        if cores:
            parts.append(f"{cores} core{'s' * (cores != 1)}")
        if self.memory:
            parts.append(f"{self.memory:.0f} GiB")
        names = [gpu.name for gpu in self.gpus]
        many = [f"{names.count(n)} x {n}" if names.count(n) > 1 else n for n in dict.fromkeys(names)]
        return "; ".join([", ".join(parts), *many])

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, strings and numbers, ready for JSON."""
        return {**asdict(self), "gpus": [asdict(gpu) for gpu in self.gpus]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Environment:
        """The inverse of `to_dict`. Raises `UserError` naming an unknown, missing or malformed field."""
        known = checked_fields(cls, value, "environment")
        if not isinstance(known["gpus"], list | tuple):
            raise UserError(f"environment.gpus: expected a list, got {known['gpus']!r}")
        known["gpus"] = tuple(
            Gpu(**checked_fields(Gpu, g, f"environment.gpus[{i}]")) for i, g in enumerate(known["gpus"])
        )
        known["determinism"] = Determinism(
            **checked_fields(Determinism, known["determinism"], "environment.determinism")
        )
        for name in ("seeds", "packages"):
            if not isinstance(known[name], Mapping):
                raise UserError(f"environment.{name}: expected an object, got {known[name]!r}")
            known[name] = dict(known[name])
        return cls(**known)

    def to_json(self) -> str:
        return _json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def rows(self) -> list[tuple[str, str]]:
        """(item, value) pairs in the order of the thesis's Appendix A, then what we add; without the packages."""
        gpus = [
            g.name + (f", {g.memory:.0f} GiB" if g.memory else "") + f" (board: {g.board or 'unknown'})"
            for g in self.gpus
        ]
        vbios = dict.fromkeys(g.vbios for g in self.gpus if g.vbios)
        seeds = ", ".join(f"{name} = {seed}" for name, seed in self.seeds.items())
        pairs = [
            ("CPU", self.cpu),
            ("CPU architecture", self.architecture),
            ("Physical / logical cores", f"{_show(self.physical_cores)} / {_show(self.logical_cores)}"),
            ("Memory", None if self.memory is None else f"{self.memory:.1f} GiB"),
            ("Operating system", self.os),
            ("Kernel", self.kernel),
            ("glibc", self.glibc),
            ("GPU", "; ".join(gpus)),
            ("Driver", self.driver),
            ("VBIOS", ", ".join(vbios)),
            ("CUDA", self.cuda),
            ("cuDNN", self.cudnn),
            ("Python", self.python),
            ("pip", self.pip),
            ("NumPy", self.numpy),
            ("PyTorch", self.torch),
            ("Lightning (Fabric)", self.fabric),
            ("kpm", self.kpm),
            ("Commit", f"{self.commit}{' (code changed since)' * bool(self.dirty)}" if self.commit else None),
            ("Threads (intra-op / inter-op)", f"{_show(self.threads)} / {_show(self.interop_threads)}"),
            ("OMP_NUM_THREADS", self.omp_num_threads),
            ("Seeds", seeds),
        ]
        flags = [(f"PyTorch: {name.replace('_', ' ')}", value) for name, value in asdict(self.determinism).items()]
        return [(item, _show(value)) for item, value in pairs + flags]

    def to_text(self) -> str:
        """A compact table for the terminal; the packages are only counted."""
        rows = [*self.rows(), ("Packages", f"{len(self.packages)} (listed by --json and --markdown)")]
        width = max(len(item) for item, _ in rows)
        return "\n".join(f"{item:<{width}}  {value}" for item, value in rows)

    def to_markdown(self) -> str:
        """The thesis's table (Appendix A) in Markdown, followed by the complete package list."""
        lines = ["| Item | Value |", "| --- | --- |"]
        lines += [f"| {item} | {_cell(value)} |" for item, value in self.rows()]
        lines += ["", f"Complete package list ({len(self.packages)}):", "", "```"]
        lines += [f"{name}=={version}" for name, version in self.packages.items()]
        return "\n".join([*lines, "```"])


def report(seeds: Mapping[str, int] | None = None) -> Environment:
    """Gather the environment report of this process, with the `seeds` of the run by name (``{"torch": 7253}``).

    What is absent (no GPU, no git, no lspci) is `None` or empty; nothing is raised for it.
    """
    packages = _packages()
    commit, dirty = _commit()
    gpus, driver = _nvidia()
    settings = _torch_settings()
    return Environment(
        os=_os_name(),
        cpu=_cpu(),
        architecture=platform.machine() or None,
        kernel=platform.release() or None,
        glibc=" ".join(platform.libc_ver()[1:]) or None if platform.libc_ver()[0] == "glibc" else None,
        physical_cores=_quietly(psutil.cpu_count, False),
        logical_cores=os.cpu_count(),
        memory=_quietly(lambda: round(psutil.virtual_memory().total / 2**30, 1)),
        gpus=gpus or settings["gpus"],
        driver=driver,
        cuda=settings["cuda"],
        cudnn=settings["cudnn"],
        python=platform.python_version(),
        pip=packages.get("pip"),
        numpy=packages.get("numpy"),
        torch=settings["torch"],
        fabric=packages.get("lightning-fabric"),
        kpm=__version__,
        commit=commit,
        dirty=dirty,
        threads=settings["threads"],
        interop_threads=settings["interop_threads"],
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        determinism=settings["determinism"],
        seeds={str(name): int(seed) for name, seed in (seeds or {}).items()},
        packages=packages,
    )


def report_command(json: bool = False, markdown: bool = False) -> int:
    """Print the environment report: hardware, drivers, versions, settings, commit.

    Args:
        json: As JSON, with all packages.
        markdown: As the table of the thesis's Appendix A, with all packages.
    """
    if json and markdown:
        raise UserError("--json and --markdown exclude each other; choose one")
    found = report()
    print(found.to_json() if json else found.to_markdown() if markdown else found.to_text())
    return 0


def _show(value: Any) -> str:
    """How a value reads in a table: yes/no for flags, a dash for what is not there."""
    if value is None or value == "":
        return "-"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def checked_fields(cls: type, value: Any, where: str) -> dict[str, Any]:
    """`value` as the arguments of dataclass `cls`; `UserError` naming `where` and a field unknown or missing."""
    where = f"{where}: " if where else ""
    if not isinstance(value, Mapping):
        raise UserError(f"{where}expected an object with fields, got {value!r}")
    names = {f.name for f in fields(cls)}
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    if unknown := [name for name in value if name not in names]:
        raise UserError(f"{where}unknown field {unknown[0]!r}")
    if missing := [name for name in needed if name not in value]:
        raise UserError(f"{where}field {missing[0]!r} is missing")
    return dict(value)


def _quietly(call: Callable, *args: Any) -> Any:
    """`call(*args)`, or `None` if it fails: a report never stops the run it describes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(*args)
    except Exception:
        return None


def _output(*command: str, timeout: float = 5.0) -> str | None:
    """Standard output of a program, or `None` if it is absent, fails, or takes longer than `timeout` seconds."""
    # lspci and sysctl live in sbin on some systems; GIT_OPTIONAL_LOCKS keeps `git status` from writing the index.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    env = {**os.environ, "PATH": path, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, env=env, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def _os_name() -> str | None:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}".strip()
    release = _quietly(platform.freedesktop_os_release) or {}
    return release.get("PRETTY_NAME") or platform.system() or None


def _cpu() -> str | None:
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or None
    info = _quietly(lambda: Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")) or ""
    found = re.search(r"^model name\s*:\s*(\S.*)$", info, re.MULTILINE)
    if not found:  # ARM's cpuinfo has no model name; lscpu knows it from its own table
        found = re.search(r"^Model name:\s*(\S.*)$", _output("lscpu") or "", re.MULTILINE)
    return " ".join(found[1].split()) if found else None


def _nvidia() -> tuple[tuple[Gpu, ...], str | None]:
    """The NVIDIA GPUs and the driver's version, from nvidia-smi; the board's vendor from lspci."""
    columns = "name,driver_version,vbios_version,memory.total,pci.bus_id,pci.sub_device_id"
    listing = _output("nvidia-smi", f"--query-gpu={columns}", "--format=csv,noheader,nounits")
    gpus, driver = [], None
    for line in (listing or "").splitlines():
        cells = [_known(cell) for cell in line.split(",")]
        if len(cells) != 6 or not cells[0]:
            continue
        name, driver, vbios, mib, bus, board = cells
        memory = round(float(mib) / 1024, 1) if mib and re.fullmatch(r"[\d.]+", mib) else None
        gpus.append(Gpu(name=name, board=_board_vendor(bus, board), memory=memory, vbios=vbios))
    return tuple(gpus), driver


def _known(cell: str) -> str | None:
    """nvidia-smi writes ``[N/A]``, ``[Not Supported]`` and the like for what it cannot tell."""
    cell = cell.strip()
    return None if not cell or cell.startswith("[") or cell == "N/A" else cell


def _board_vendor(bus: str | None, board_id: str | None) -> str | None:
    if bus:
        # nvidia-smi writes an eight-digit PCI domain, lspci a four-digit one.
        listing = _output("lspci", "-vmm", "-s", re.sub(r"^0000(?=[0-9A-Fa-f]{4}:)", "", bus)) or ""
        if found := re.search(r"^SVendor:\s*(\S.*)$", listing, re.MULTILINE):
            return found[1].strip()
    # The lower half of the subsystem id, 0xDDDDVVVV, is the vendor's PCI id.
    vendor = board_id[-4:].upper() if board_id else None
    return _BOARD_VENDORS.get(vendor, f"PCI vendor {vendor}") if vendor else None


def _packages() -> dict[str, str]:
    """Every installed distribution, name -> version, sorted; the first on the path wins, as for ``import``.

    Only names and versions are read: the origin of an editable or direct install is a path or an address.
    """
    found: dict[str, str] = {}
    for dist in metadata.distributions():
        name, version = _quietly(lambda d=dist: (d.metadata["Name"], d.version)) or (None, None)
        if name and version:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return dict(sorted(found.items()))


def _commit() -> tuple[str | None, bool | None]:
    """The commit of the checkout that this package is imported from, and whether its code differs from it."""
    checkout = Path(__file__).resolve().parent.parent
    top = _output("git", "-C", str(checkout), "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != checkout:  # an install inside somebody else's repository is not a checkout
        return None, None
    commit = _output("git", "-C", str(checkout), "rev-parse", "--verify", "HEAD")
    if not commit:
        return None, None
    changes = _output("git", "-C", str(checkout), "status", "--porcelain", "--", "kpm", "tests", "pyproject.toml")
    return commit, None if changes is None else bool(changes)


def _torch_settings() -> dict[str, Any]:
    """What PyTorch itself says: versions, threads, determinism, and its devices where nvidia-smi says nothing."""
    try:
        import torch
    except Exception:  # a broken install raises OSError; the report must still say so much
        nothing = dict.fromkeys(("torch", "cuda", "cudnn", "threads", "interop_threads"))
        empty = Determinism(**{f.name: None for f in fields(Determinism)})
        return {**nothing, "gpus": (), "determinism": empty}
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return {
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda or (f"ROCm {torch.version.hip}" if torch.version.hip else None),
        "cudnn": _cudnn_version(_quietly(cudnn.version)),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "gpus": _quietly(_torch_gpus, torch) or (),
        "determinism": Determinism(
            deterministic_algorithms=torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
            cudnn_deterministic=cudnn.deterministic,
            cudnn_benchmark=cudnn.benchmark,
            # PyTorch refuses to read these once its newer fp32_precision settings have been used.
            cudnn_tf32=_quietly(lambda: cudnn.allow_tf32),
            matmul_tf32=_quietly(lambda: cuda.matmul.allow_tf32),
            float32_matmul_precision=_quietly(torch.get_float32_matmul_precision),
            cublas_workspace=os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        ),
    }


def _torch_gpus(torch: Any) -> tuple[Gpu, ...]:
    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return tuple(Gpu(name=p.name, memory=round(p.total_memory / 2**30, 1)) for p in found)
    if torch.backends.mps.is_available():
        return (Gpu(name="Apple GPU (Metal)", board="Apple"),)
    return ()


def _cudnn_version(number: int | None) -> str | None:
    """cuDNN's integer as people write it: 8902 -> 8.9.2, 90100 -> 9.1.0 (the coding changed with 9)."""
    if number is None:
        return None
    major, rest = divmod(number, 10000 if number >= 90000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"
