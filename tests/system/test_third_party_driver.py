"""The drivers of the guides, each installed as somebody else's package, pass the suites."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("guide", "module", "others", "tests", "skips"),
    [
        ("new-driver.md", "our_microscope", set(), 20, 0),
        # It has no beam shift, stage and scan in which three kinds of fault could be tried.
        ("drivers/jeol.md", "our_jeol", {"our_fake.py"}, 35, 9),
    ],
)
def test_the_driver_of_the_guide_loads_by_entry_point_and_conforms(
    tmp_path: Path, guide: str, module: str, others: set[str], tests: int, skips: int
):
    text = (DOCS / guide).read_text(encoding="utf-8")
    files = dict(re.findall(r"```(?:toml|python)\n# (\S+)\n(.*?)```", text, re.DOTALL))
    assert set(files) == {"pyproject.toml", f"{module}.py", f"test_{module}.py"} | others
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")

    # What pip would write for it: installing would need the network to fetch a build backend.
    package = tomllib.loads(files["pyproject.toml"])
    project = package["project"]
    # setuptools refuses to guess which of several modules beside one another it shall install.
    assert set(package["tool"]["setuptools"]["py-modules"]) == {
        name.removesuffix(".py") for name in {f"{module}.py"} | others
    }
    installed = tmp_path / f"{module}-{project['version']}.dist-info"
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
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_{module}.py"],
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
    assert int(passed.group(1)) >= tests
    skipped = re.search(r"(\d+) skipped", run.stdout)
    assert int(skipped.group(1) if skipped else 0) == skips

    listed = subprocess.run(
        [sys.executable, "-m", "semagent", "drivers", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if listed.returncode == 0:
        assert f'"{project["name"]}"' in listed.stdout
