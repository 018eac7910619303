"""The project as a whole: pins, scripts, the README's commands, the Makefile and the CI script."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SITE_PACKAGES = Path(importlib.metadata.distribution("torch").locate_file(""))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in pairs}


def tracked_files() -> list[Path]:
    """Of git where there is one, else what a source archive holds."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if done.returncode == 0 and done.stdout:
        return [p for name in done.stdout.split("\0") if name and (p := ROOT / name).is_file()]
    hidden = {".venv", ".git", "__pycache__", "build", "dist"}
    return [p for p in ROOT.rglob("*") if p.is_file() and not hidden & set(p.parts)]


def run(
    *command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


# Dependencies


def test_what_runs_here_is_what_is_pinned() -> None:
    wrong = []
    for name, version in pins().items():
        found = importlib.metadata.version(name).split("+")[0]
        if found != version:
            wrong.append(f"{name} is {found}, pinned {version}")
    assert wrong == []


def test_everything_that_is_needed_is_pinned() -> None:
    """The closure of the base and dev requirements; extras of others are their own affair."""
    todo = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    needed: set[str] = set()
    while todo:
        requirement = todo.pop()
        found = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert found, requirement
        name, marker = normal(found[0]), requirement.partition(";")[2]
        if name in needed or "extra" in marker:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or another build of torch
        needed.add(name)
        todo += distribution.requires or []
    assert needed - set(pins()) == set()


def test_torch_is_pinned_without_a_build() -> None:
    """A local suffix would refuse the CUDA build on a machine that has a GPU."""
    assert re.fullmatch(r"2\.\d+\.\d+", pins()["torch"])


def test_tritons_range_begins_with_the_version_that_is_tested() -> None:
    """The one that `make test` brings, and of which kernels_triton/resources.json is."""
    tested = re.search(
        r"^TRITON := triton==(\d+\.\d+)\.\d+$", (ROOT / "Makefile").read_text(), re.M
    )
    recorded = json.loads((ROOT / "kernels_triton/resources.json").read_text())["triton"]
    assert tested and recorded.startswith(f"{tested[1]}.")
    (stated,) = [r for r in PROJECT["optional-dependencies"]["gpu"] if r.startswith("triton")]
    assert stated.partition(";")[0] == f"triton>={tested[1]},<4"
    assert f"Triton ({tested[1]} is tested)" in README


# Text


def test_no_file_speaks_of_the_machine_it_was_written_on() -> None:
    forbidden = re.compile(
        "|".join(
            [
                r"/work/(main|shared|env)\b",
                r"(?<![\w.])/(root|home/\w+)/",
                r"python" + r"hosted\.org",
                r"py" + r"pi\.org",
                r"\.\./" + r"shared/",
                r"(?<!docs/)\bnotes/\w+\.md",
                r"(?i:\bissue) " + r"#?3\b",
                # documents that are not in the repository; sources are papers and published code
                r"(?i:\bspecification),? (of style|section)",
                r"\bspecs/",
                r"(?i:\bgoldens?'?s? readme\b)",
            ]
        )
    )
    found = []
    for path in tracked_files():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if match := forbidden.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match.group()}")
    assert found == []


def test_licence_and_changelog_are_there() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence and "END OF TERMS AND CONDITIONS" in licence
    assert PROJECT["license"] == "Apache-2.0"
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


# The README's commands


def readme_commands() -> list[str]:
    """Lines of shell blocks, joined over backslashes, comments off."""
    commands = []
    for block in re.findall(r"```(?:sh|bash)\n(.*?)```", README, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.split(r"\s#\s", line)[0].strip()
            if line and not line.startswith("#"):
                commands.append(line)
    return commands


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def fault_of(command: str, helps: dict[str, str]) -> str | None:
    """Why a command of the README would not work; None where it would."""
    words = shlex.split(command)
    words = words[next(i for i, word in enumerate(words) if "=" not in word) :]
    if words[0] == "make":
        goals = [w for w in words[1:] if "=" not in w]
        return next((f"no target {g}" for g in goals if g not in make_targets()), None)
    if words[0] == "python" and words[1].endswith(".py"):
        script = ROOT / words[1]
        if not script.is_file():
            return f"no file {words[1]}"
        key, prefix = words[1], [str(script)]
    elif words[0] == "stylewire":
        key, prefix = f"stylewire {words[1]}", ["-m", "realtime", words[1]]
    else:
        return None  # cd, git, pip: not ours
    if key not in helps:
        done = run(sys.executable, *prefix, "--help")
        if done.returncode:
            return f"{key} --help: {done.stderr.strip()[-200:]}"
        helps[key] = done.stdout
    flags = [w.partition("=")[0] for w in words if w.startswith("--")]
    return next((f"{key} has no {f}" for f in flags if not re.search(rf"{f}\b", helps[key])), None)


def test_every_command_of_the_readme_exists() -> None:
    helps: dict[str, str] = {}
    commands = readme_commands()
    faults = [f"{c}: {fault}" for c in commands if (fault := fault_of(c, helps))]
    assert faults == []
    for needed in ("make run", "make test"):
        assert needed in commands
    for use in ("serve", "record", "sample", "convert", "doctor"):
        assert any(c.startswith(f"stylewire {use}") for c in commands), use


@pytest.mark.parametrize(
    "command", ["make nothing", "python bench/none.py", "stylewire serve --flag-that-is-not"]
)
def test_a_command_that_does_not_exist_is_seen(command: str) -> None:
    assert fault_of(command, {})


def test_readme_links_and_pictures_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)|(?:src|href)=\"([^\"#]+)\"", README)
    local = [a or b for a, b in links if not (a or b).startswith(("http", "mailto"))]
    assert [link for link in local if not (ROOT / link).exists()] == []


# Scripts

SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("bench", "examples")
    for path in (ROOT / folder).glob("*.py")
    if 'if __name__ == "__main__"' in path.read_text()
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_runs_from_another_folder_without_being_installed(
    script: str, tmp_path: Path
) -> None:
    # -S with PYTHONPATH: packages are found, .pth files (an editable install) are not.
    env = {**os.environ, "PYTHONPATH": str(SITE_PACKAGES), "OMP_NUM_THREADS": "1"}
    done = run(sys.executable, "-S", ROOT / script, "--help", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["realtime", "models"])
def test_commands_answer_help_without_loading_torch(package: str) -> None:
    code = (
        "import runpy, sys\n"
        "try: runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = run(sys.executable, "-c", code, package, "--help")
    assert done.returncode == 0, done.stderr
    assert "sample" in done.stdout


# The Makefile and CI


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the Makefile, and a bin/ that is the whole PATH."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "bin").mkdir()
    return tmp_path


def stub(place: Path, name: str, body: str) -> None:
    path = place / "bin" / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def make(place: Path, *goals: str, **variables: str) -> subprocess.CompletedProcess[str]:
    make_path = shutil.which("make")
    if make_path is None:
        pytest.skip("needs make")
    return run(make_path, *goals, cwd=place, env={"PATH": str(place / "bin"), **variables})


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome"])
def test_a_browser_on_the_path_is_found(place: Path, name: str) -> None:
    stub(place, name, "exit 0")
    done = make(place, "browser")
    assert done.returncode == 0 and f"bin/{name}" in done.stdout


def test_root_installs_debians_chromium(place: Path) -> None:
    stub(place, "id", "echo 0")
    stub(place, "apt-get", f'echo "apt-get $*" >> {place}/calls')
    assert make(place, "browser").returncode == 0
    calls = (place / "calls").read_text().splitlines()
    assert calls[0] == "apt-get update" and calls[1].endswith(
        "install -y --no-install-recommends chromium"
    )


def test_a_failed_installation_of_chromium_is_not_swallowed(place: Path) -> None:
    stub(place, "id", "echo 0")
    stub(place, "apt-get", "exit 100")
    assert make(place, "browser").returncode != 0


def test_others_are_told_how_to_get_a_browser(place: Path) -> None:
    stub(place, "id", "echo 1000")
    stub(place, "apt-get", f"touch {place}/called")
    done = make(place, "browser")
    assert done.returncode != 0 and "sudo apt-get install chromium" in done.stderr
    assert not (place / "called").exists()


def test_an_old_python_is_refused_with_a_sentence(place: Path) -> None:
    stub(place, "python3", "exit 1")
    done = make(place, ".venv/bin/python")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr and not (place / ".venv").exists()


def test_a_second_call_installs_nothing(place: Path) -> None:
    (place / "pyproject.toml").touch()
    (place / "constraints.txt").touch()
    stub(place, "touch", 'exec /usr/bin/env -i PATH=/usr/bin:/bin touch "$@"')
    stub(
        place,
        "python3",
        f"""
case "$1" in
-m) mkdir -p .venv/bin; printf '#!/bin/sh\\necho "$*" >> {place}/calls\\n' > .venv/bin/python
    /bin/chmod +x .venv/bin/python;;
esac""",
    )
    stub(place, "mkdir", 'exec /bin/mkdir "$@"')
    for _ in range(2):
        done = make(place, "run", "PORT=9000", "ARGS=--fps 60")
        assert done.returncode == 0, done.stderr
    calls = (place / "calls").read_text().splitlines()
    serve = "-m realtime serve --port 9000 --fps 60"
    assert [c for c in calls if "pip install" not in c] == [serve, serve]
    (pip,) = [c for c in calls if "pip install" in c]
    assert "-c constraints.txt -e ." in pip


def test_ci_runs_make_test_in_a_clean_environment(place: Path) -> None:
    (place / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", place / ".ci")
    stub(place, "make", 'echo "args $*"; env')
    for tool in ("env", "dirname", "bash"):
        found = shutil.which(tool)
        assert found is not None
        (place / "bin" / tool).symlink_to(found)
    env = {
        "PATH": str(place / "bin"),
        "HOME": "/nowhere",
        "CI": "true",
        "SECRET_TOKEN": "x",
        "PYTHONPATH": "elsewhere",
        "PIP_INDEX_URL": "an index",
        "https_proxy": "a proxy",
        "SSL_CERT_FILE": "a file",
    }
    done = run("bash", place / ".ci" / "run", cwd=place.parent, env=env)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first == "args --no-print-directory test"
    seen = dict(line.split("=", 1) for line in rest)
    for name in ("CI", "HOME", "PIP_INDEX_URL", "https_proxy", "SSL_CERT_FILE"):
        assert seen[name] == env[name]
    assert "SECRET_TOKEN" not in seen and "PYTHONPATH" not in seen
    assert Path(seen["PWD"]) == place and seen["XDG_CACHE_HOME"].startswith(str(place))
