"""The workflows for a hosted CI, as far as they can be checked without one."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tools.release.build import packages_in
from tools.release.metadata import pythons
from tools.release.versions import project_of, tomllib

ROOT = Path(__file__).parents[2]
PACKAGES = packages_in(ROOT / "packages")
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text("utf-8"))
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
JOBS = {(w, j): job for w, workflow in WORKFLOWS.items() for j, job in workflow["jobs"].items()}


def runs(job):
    return "\n".join(step.get("run", "") for step in job["steps"])


def steps_using(job, action):
    return [step for step in job["steps"] if step.get("uses", "").startswith(f"{action}@")]


def test_there_are_the_jobs_that_a_change_and_a_release_need():
    assert set(JOBS) == {
        *(("ci", job) for job in ("lint", "tests", "wheels", "release", "docs")),
        *(("release", job) for job in ("check", "publish")),
    }


@pytest.mark.parametrize("job", JOBS.values(), ids=map("-".join, JOBS))
def test_every_command_exists_and_every_action_has_a_major_version(job):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    environments = settings["tool"]["hatch"]["envs"]
    for environment, script in re.findall(r"hatch run ([\w-]+):([\w-]+)", runs(job)):
        assert script in environments[environment]["scripts"]
    assert runs(job).count("hatch run") == len(re.findall(r"hatch run [\w-]+:[\w-]+", runs(job)))
    for step in job["steps"]:
        assert re.fullmatch(r"[\w./-]+@(release/)?v\d+", step.get("uses", "actions/none@v0"))


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.name)
def test_the_tests_run_on_every_python_that_a_package_names(folder):
    named = pythons(folder)
    assert JOBS["ci", "tests"]["strategy"]["matrix"]["python"] == named
    assert project_of(folder)["requires-python"] == f">={named[0]}"
    for job in JOBS.values():
        for step in steps_using(job, "actions/setup-python"):
            asked = str(step["with"]["python-version"])
            assert asked == "${{ matrix.python }}" or set(asked.split()) <= set(named)


@pytest.mark.parametrize("job", [("ci", "release"), ("release", "check")], ids="-".join)
def test_a_release_is_checked_with_all_tags_on_the_oldest_and_the_newest_python(job):
    (checkout,) = steps_using(JOBS[job], "actions/checkout")
    assert checkout["with"]["fetch-depth"] == 0
    (python,) = steps_using(JOBS[job], "actions/setup-python")
    named = pythons(PACKAGES[0])
    assert python["with"]["python-version"].split() == [named[0], named[-1]]
    assert "hatch run release:check" in runs(JOBS[job]).splitlines()


def test_only_the_job_that_uploads_may_ask_for_an_identity():
    publish = JOBS["release", "publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert (publish["environment"], publish["needs"]) == ("pypi", "check")
    assert not runs(publish).strip()
    (upload,) = steps_using(publish, "pypa/gh-action-pypi-publish")
    assert upload["with"] == {"attestations": True}
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {"contents": "read"}, name
    assert [job for job in JOBS.values() if "permissions" in job] == [publish]


def test_a_tag_publishes_what_was_checked_of_its_package_alone(tmp_path):
    (step,) = (s for s in JOBS["release", "check"]["steps"] if "env" in s)
    assert step["env"] == {"TAG": "${{ github.ref_name }}"}
    (pattern,) = WORKFLOWS["release"][True]["push"]["tags"]  # YAML reads `on` as true
    built = tmp_path / "runs" / "release" / "dist"
    built.mkdir(parents=True)
    for folder in PACKAGES:
        for version in ("0.3.0", "1.0.0rc1"):
            stem = f"{folder.name.replace('-', '_')}-{version}"
            (built / f"{stem}-py3-none-any.whl").touch()
            (built / f"{stem}.tar.gz").touch()
    for tag in ("effconv-core-v0.3.0", "effconv-kernels-v1.0.0rc1"):
        assert Path(tag).match(pattern)
        command = f"set -eo pipefail\nrm -rf dist\n{step['run']}"
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env={"TAG": tag}, check=True)
        stem = tag.replace("-v", "@").replace("-", "_").replace("@", "-")
        assert {path.name for path in (tmp_path / "dist").iterdir()} == {
            f"{stem}-py3-none-any.whl",
            f"{stem}.tar.gz",
        }
    wrong = subprocess.run(
        ["bash", "-ec", step["run"]],
        cwd=tmp_path,
        env={"TAG": "effconv-core-v9"},
        capture_output=True,
        check=False,
    )
    assert wrong.returncode != 0
