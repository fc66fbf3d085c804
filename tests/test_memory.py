"""How much memory a run may take."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from volconv.errors import ParameterError
from volconv.memory import LIBRARIES, MOST_BY_DEFAULT, default_memory, free_memory, in_words, parse_memory, share

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 << 20),
        ("512m", 512 << 20),
        ("512MB", 512 << 20),
        ("512MiB", 512 << 20),
        (" 1.5 G ", 3 << 29),
        ("1T", 1 << 40),
        ("300000K", 300000 << 10),
        ("268435456", 1 << 28),
        ("268435456B", 1 << 28),
        (1 << 28, 1 << 28),
    ],
)
def test_sizes(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "M", "1Q", "1 G G", "-1G", "1e9", "1,5G", "nan", "٣G", True, 1e9, "9" * 400])
def test_what_is_no_size(text):
    with pytest.raises(ParameterError, match=r"^memory must be a size such as 512M or 1.5G, or a number of bytes "):
        parse_memory(text)


def test_less_than_the_libraries_take():
    with pytest.raises(ParameterError, match=r"^memory must be at least 120M, .* \(got 64M\)$"):
        parse_memory("64M")


@pytest.mark.parametrize(("size", "text"), [(1, "1M"), (5 << 20, "5M"), (3 * GIB, "3G"), (3 * GIB + 1, "3073M")])
def test_sizes_in_words(size, text):
    assert in_words(size) == text


def test_the_default():
    assert LIBRARIES <= default_memory() <= MOST_BY_DEFAULT


def test_several_jobs_share_one_bound():
    assert share(LIBRARIES + 90, 3) == LIBRARIES + 30
    assert share(GIB, 1) == GIB


# --- what is free, as Linux tells it


@pytest.fixture
def system(tmp_path):
    """Folders that stand for /proc and /sys/fs/cgroup, with 8 GiB free."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    cgroups.mkdir()
    (proc / "meminfo").write_text("MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n")
    return proc, cgroups


def cgroup(folder, limit, used, cached, names=("memory.max", "memory.current", "inactive_file")):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\nsome 2\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_the_machine(system):
    assert free_memory(*system) == 8 * GIB


def test_a_cgroup_counts_its_cached_files_as_free(system):
    proc, cgroups = system
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    cgroup(cgroups / "a" / "b", 3 * GIB, 2 * GIB, GIB // 2)
    assert free_memory(proc, cgroups) == 3 * GIB // 2


def test_a_cgroup_without_a_limit_inside_one_with_a_limit(system):
    proc, cgroups = system
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    cgroup(cgroups / "a" / "b", "max", GIB, 0)
    cgroup(cgroups / "a", 2 * GIB, GIB, 0)
    assert free_memory(proc, cgroups) == GIB


def test_a_cgroup_of_version_1(system):
    proc, cgroups = system
    (proc / "self" / "cgroup").write_text("5:cpu,cpuacct:/a\n4:memory:/a\n0::/\n")
    cgroup(cgroups / "memory" / "a", 2 * GIB, GIB, 0, V1)
    cgroup(cgroups / "memory", 9223372036854771712, GIB, 0, V1)
    assert free_memory(proc, cgroups) == GIB


def test_a_container_that_sees_its_cgroup_as_the_root(system):
    proc, cgroups = system
    (proc / "self" / "cgroup").write_text("0::/system.slice/elsewhere\n")
    cgroup(cgroups, GIB, 0, 0)
    assert free_memory(proc, cgroups) == GIB


def test_an_exceeded_cgroup_has_nothing_free(system):
    proc, cgroups = system
    (proc / "self" / "cgroup").write_text("0::/\n")
    cgroup(cgroups, GIB, 2 * GIB, 0)
    assert free_memory(proc, cgroups) == 0


def test_a_system_that_tells_nothing(tmp_path):
    assert free_memory(tmp_path, tmp_path) > 0


def test_a_limit_on_addresses():
    code = "from volconv.memory import free_memory; print(free_memory())"

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB))

    done = subprocess.run([sys.executable, "-c", code], preexec_fn=limited, capture_output=True, check=True, text=True)
    assert 0 < int(done.stdout) < GIB
