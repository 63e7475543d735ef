"""The driver of docs/new-driver.md, installed as somebody else's package, passes the suite."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "new-driver.md"


def test_the_driver_of_the_guide_loads_by_entry_point_and_conforms(tmp_path: Path):
    blocks = re.findall(
        r"```(?:toml|python)\n# (\S+)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL
    )
    files = dict(blocks)
    assert set(files) == {"pyproject.toml", "our_microscope.py", "test_our_microscope.py"}
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")

    # What pip would write for it: installing would need the network to fetch a build backend.
    project = tomllib.loads(files["pyproject.toml"])["project"]
    installed = tmp_path / f"our_microscope-{project['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n",
        encoding="utf-8",
    )
    (group, points), *_ = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (installed / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")

    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_our_microscope.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 20
    assert "skipped" not in run.stdout

    listed = subprocess.run(
        [sys.executable, "-m", "semagent", "drivers", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if listed.returncode == 0:
        assert '"our-microscope"' in listed.stdout
