"""What the control groups of a container leave, read from trees as kernels show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from objectives.devices.control_groups import memory_free, memory_limits


def tree(root: Path, line: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"9:name=systemd:/\n3:cpuset:/\n{line}\n")
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/", {"memory.max": "1000"}, [1000]),
        ("0::/", {"memory.max": "max"}, []),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "2000", "memory.max": "3000"}, [2000, 3000]),
        ("0::/not/shown/here", {"memory.max": "4000"}, [4000]),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": "5000"}, [5000]),
        ("4:cpu:/", {"memory/memory.limit_in_bytes": "6000"}, []),
        ("0::/", {}, []),
    ],
)
def test_limits_are_those_of_the_group_and_of_all_above_it(
    tmp_path: Path, line: str, files: dict[str, str], expected: list[int]
) -> None:
    assert list(memory_limits(tree(tmp_path, line, files))) == expected


STAT = "anon 100\nactive_file 30\ninactive_file 20\nfile_mapped 9"


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/", {"memory.max": "1000", "memory.current": "400"}, [600]),
        ("0::/", {"memory.max": "1000", "memory.current": "400", "memory.stat": STAT}, [650]),
        ("0::/", {"memory.max": "max", "memory.current": "400"}, []),
        ("0::/", {"memory.max": "1000"}, []),
        (
            "0::/a/b",
            {"a/memory.max": "900", "a/memory.current": "800", "memory.max": "1000", "memory.current": "400"},
            [100, 600],
        ),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": "50", "memory/a/memory.usage_in_bytes": "20"}, [30]),
        ("0::/", {"memory.max": "1000", "memory.current": "400", "memory.stat": "garbage"}, [600]),
    ],
)
def test_what_is_free_is_what_every_limit_leaves(
    tmp_path: Path, line: str, files: dict[str, str], expected: list[int]
) -> None:
    assert list(memory_free(tree(tmp_path, line, files))) == expected


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert list(memory_limits(tmp_path)) == list(memory_free(tmp_path)) == []
