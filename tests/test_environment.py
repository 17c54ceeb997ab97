"""The environment report against what Python, numpy, torch, git and the system say themselves."""

import ctypes
import getpass
import json
import os
import platform
import socket
import stat
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy
import psutil
import pytest
import torch

import kpm
from kpm import environment
from kpm.environment import Environment, Gpu, report, report_command
from kpm.errors import UserError


@pytest.fixture(scope="module")
def found() -> Environment:
    return report({"torch": 7253})


def tool(folder: Path, name: str, script: str) -> None:
    """A stand-in program on the PATH."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_versions_are_those_of_the_libraries(found):
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.numpy == numpy.__version__
    assert found.torch == torch.__version__
    assert found.pip == metadata.version("pip")
    assert found.fabric == metadata.version("lightning-fabric")
    assert found.kpm == kpm.__version__
    assert found.cuda == torch.version.cuda


def test_machine_is_this_one(found):
    assert found.kernel == os.uname().release
    assert found.architecture == os.uname().machine
    assert found.logical_cores == os.cpu_count()
    assert found.physical_cores == psutil.cpu_count(logical=False)
    assert found.memory == pytest.approx(psutil.virtual_memory().total / 1024**3, abs=0.06)
    assert found.cpu and found.os


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_glibc_is_what_the_c_library_reports(found):
    version = ctypes.CDLL(None).gnu_get_libc_version
    version.restype = ctypes.c_char_p
    assert found.glibc == version().decode()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /etc/os-release")
def test_operating_system_is_the_distribution(found):
    lines = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    assert found.os == lines["PRETTY_NAME"].strip('"')


def test_packages_are_all_installed_ones_with_their_versions(found):
    assert found.packages["torch"] == torch.__version__
    assert found.packages["scikit-learn"] == metadata.version("scikit-learn")
    installed = {d.metadata["Name"].lower().replace("_", "-").replace(".", "-") for d in metadata.distributions()}
    assert set(found.packages) == installed
    assert list(found.packages) == sorted(found.packages)


def test_settings_follow_torch():
    before = torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_num_threads(before + 1)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_float32_matmul_precision("high")
        changed = report()
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision(precision)
    assert (changed.threads, report().threads) == (before + 1, before)
    assert changed.determinism.deterministic_algorithms is True
    assert changed.determinism.warn_only is True
    assert changed.determinism.float32_matmul_precision == "high"
    assert report().determinism.deterministic_algorithms is False
    assert report().determinism.float32_matmul_precision == precision


def test_json_round_trip(found):
    value = json.loads(found.to_json())
    assert Environment.from_dict(value) == found
    assert value["seeds"] == {"torch": 7253}
    with_gpu = Environment.from_dict({**value, "gpus": [{"name": "G", "board": None, "memory": 8.0, "vbios": "1.2"}]})
    assert Environment.from_dict(json.loads(with_gpu.to_json())) == with_gpu
    assert with_gpu.gpus == (Gpu("G", None, 8.0, "1.2"),)
    assert with_gpu.hardware.endswith("; G")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "environment: unknown field 'colour'"),
        ({"gpus": [{"nam": "x"}]}, r"environment.gpus\[0\]: unknown field 'nam'"),
        ({"gpus": "none"}, "environment.gpus: expected a list"),
        ({"determinism": {}}, "environment.determinism: field 'deterministic_algorithms' is missing"),
        ({"packages": ["numpy"]}, "environment.packages"),
    ],
)
def test_from_dict_names_the_bad_field(found, change, message):
    with pytest.raises(UserError, match=message):
        Environment.from_dict({**found.to_dict(), **change})


def test_from_dict_names_the_missing_field(found):
    value = found.to_dict()
    del value["kernel"]
    with pytest.raises(UserError, match="'kernel' is missing"):
        Environment.from_dict(value)


def test_report_holds_nothing_private(tmp_path, monkeypatch):
    """No path, user, host or address, even where a package was installed from one."""
    dist = tmp_path / "zebra_lib-1.2.3.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: zebra_lib\nVersion: 1.2.3\nHome-page: https://x.org\n")
    (dist / "direct_url.json").write_text('{"url": "file:///home/quagga/zebra", "dir_info": {"editable": true}}')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("USER", "quagga")
    monkeypatch.setenv("HOME", "/home/quagga")
    monkeypatch.setattr(socket, "gethostname", lambda: "okapi-host")
    monkeypatch.setattr(platform, "node", lambda: "okapi-host")
    text = report().to_json() + report().to_markdown() + report().to_text()
    assert '"zebra-lib": "1.2.3"' in text and "zebra-lib==1.2.3" in text
    here = [str(tmp_path), str(Path.cwd()), sys.prefix, sys.executable, "/home/"]
    assert [word for word in [*here, "quagga", "okapi", "://"] if word in text] == []
    user = getpass.getuser()
    assert user == "quagga"  # so that the line above looked for the right name


def test_nvidia_gpu_with_lspci(tmp_path, monkeypatch):
    """The columns of nvidia-smi and the board's vendor from lspci, as on the thesis's machine."""
    tool(
        tmp_path,
        "nvidia-smi",
        'echo "NVIDIA GeForce RTX 3090, 555.42.02, 94.02.26.08.1C, 24576, 00000000:17:00.0, 0x403B1458"',
    )
    expected = "0000:17:00.0"
    tool(
        tmp_path,
        "lspci",
        f'[ "$3" = "{expected}" ] && printf "Vendor:\\tNVIDIA\\nSVendor:\\tGigabyte Technology Co., Ltd\\n"',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = report()
    gpu = Gpu("NVIDIA GeForce RTX 3090", "Gigabyte Technology Co., Ltd", 24.0, "94.02.26.08.1C")
    assert found.gpus == (gpu,)
    assert found.driver == "555.42.02"
    rows = dict(found.rows())
    assert rows["GPU"] == "NVIDIA GeForce RTX 3090, 24 GiB (board: Gigabyte Technology Co., Ltd)"
    assert rows["VBIOS"] == "94.02.26.08.1C"
    assert found.hardware.endswith("; NVIDIA GeForce RTX 3090")


def test_nvidia_gpu_without_lspci(tmp_path, monkeypatch):
    """Two GPUs in a container: no lspci, a field that cannot be told; the vendor comes from the board's id."""
    line = "NVIDIA H200, 570.1, {}, 143771, 00000000:{}:00.0, {}"
    a, b = line.format("96.00", "17", "0x18BE10DE"), line.format("[N/A]", "18", "0x18BEABCD")
    tool(tmp_path, "nvidia-smi", f"echo '{a}'; echo '{b}'")
    tool(tmp_path, "lspci", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    first, second = report().gpus
    assert first == Gpu("NVIDIA H200", "NVIDIA", 140.4, "96.00")
    assert (second.board, second.vbios) == ("PCI vendor ABCD", None)
    assert report().hardware.endswith("; 2 x NVIDIA H200")


def test_programs_that_are_absent_fail_or_hang_give_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    tool(tmp_path, "hangs", "exec sleep 20")
    tool(tmp_path, "fails", "echo 3; exit 3")
    assert environment._output("hangs", timeout=0.2) is None
    assert environment._output("fails") is None
    assert environment._output("no-such-program") is None
    tool(tmp_path, "nvidia-smi", "echo No devices were found; exit 6")
    assert environment._nvidia() == ((), None)
    assert report().commit is None  # git is not on this PATH


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small git repository that looks like ours, taken for the checkout that kpm is imported from."""
    (tmp_path / "kpm").mkdir()
    module = tmp_path / "kpm" / "environment.py"
    module.write_text("")

    def git(*args):
        identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
        return subprocess.run(
            ["git", *identity, *args], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(environment, "__file__", str(module))
    return tmp_path, git


def test_commit_and_dirty_flag(checkout):
    folder, git = checkout
    head = git("rev-parse", "HEAD").strip()
    assert (report().commit, report().dirty) == (head, False)
    (folder / "notes.txt").write_text("not code")
    assert report().dirty is False
    (folder / "kpm" / "new.py").write_text("code that git does not know")
    assert report().dirty is True
    assert f"{head} (code changed since)" in report().to_text()


def test_no_commit_outside_git_or_in_somebody_elses_repository(checkout, monkeypatch, tmp_path_factory):
    folder, _ = checkout
    inner = folder / "venv" / "site-packages" / "kpm"
    inner.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(inner / "environment.py"))
    assert (report().commit, report().dirty) == (None, None)
    monkeypatch.setattr(environment, "__file__", str(tmp_path_factory.mktemp("plain") / "kpm" / "environment.py"))
    assert (report().commit, report().dirty) == (None, None)


@pytest.mark.parametrize(("number", "text"), [(8902, "8.9.2"), (90100, "9.1.0"), (91002, "9.10.2"), (None, None)])
def test_cudnn_number_is_written_as_people_do(number, text):
    assert environment._cudnn_version(number) == text


def test_markdown_has_the_items_of_appendix_a_and_every_package(found):
    text = found.to_markdown()
    rows = dict(line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| "))
    items = "CPU, CPU architecture, Kernel, glibc, GPU, Driver, VBIOS, CUDA, cuDNN, Python, pip, NumPy, PyTorch"
    assert set(items.split(", ")) <= set(rows)
    assert rows["Python"] == platform.python_version()
    assert rows["Seeds"] == "torch = 7253"
    listed = text.split("```")[1].split()
    assert listed == [f"{name}=={version}" for name, version in found.packages.items()]


def test_command_prints_the_chosen_form(capsys):
    assert report_command() == 0
    text = capsys.readouterr().out
    assert f"  {numpy.__version__}\n" in text
    assert "numpy==" not in text
    assert report_command(json=True) == 0
    assert Environment.from_dict(json.loads(capsys.readouterr().out)).numpy == numpy.__version__
    assert report_command(markdown=True) == 0
    assert f"numpy=={numpy.__version__}" in capsys.readouterr().out
    with pytest.raises(UserError, match="--json and --markdown"):
        report_command(json=True, markdown=True)


def test_report_is_quick():
    start = time.perf_counter()
    report()
    assert time.perf_counter() - start < 5  # a second on an idle machine; more than that is a program that hangs
