"""environment.yml cannot be solved without conda's servers; what can be known without them is held here.

Every line parses, is needed, and has the bounds that pyproject.toml has for the same package.
"""

import tomllib
from pathlib import Path

import pytest

rattler = pytest.importorskip("rattler")
yaml = pytest.importorskip("yaml")
from packaging.requirements import Requirement  # noqa: E402
from packaging.specifiers import SpecifierSet  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_LINES = [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]
[PIP_LINES] = [line["pip"] for line in ENVIRONMENT["dependencies"] if isinstance(line, dict)]
PYPI_NAMES = {"pytorch": "torch"}  # where conda-forge has another name
CONDA_ONLY = {"python", "pip"}


def parse_conda(line):
    """(name on PyPI, bounds) of a conda spec; raises ValueError for a malformed one."""
    try:
        spec = rattler.MatchSpec(line, strict=True)
    except Exception as error:
        raise ValueError(f"{line!r} is no conda spec: {error}") from error
    name = getattr(spec.name, "normalized", None) or str(spec.name)
    return PYPI_NAMES.get(name, name), SpecifierSet(str(spec.version or ""))


def parse_pip(line):
    requirement = Requirement(line)
    return requirement.name, requirement.specifier


def wanted():
    """What pyproject.toml asks for: one CUDA is enough, and what only speeds up or only CI needs is left out."""
    extras = PROJECT["optional-dependencies"]
    lines = [
        *PROJECT["dependencies"],
        *(line for extra in ("course", "test", "oracle", "cuda12") for line in extras[extra]),
    ]
    return dict(map(parse_pip, lines))


@pytest.mark.parametrize("line", CONDA_LINES)
def test_a_conda_line_parses(line):
    parse_conda(line)


@pytest.mark.parametrize("line", ["numpy>=", "numpy >>2", "numpy[", "num py >=2 x y", ">=2.1"])
def test_a_malformed_line_is_rejected(line):
    with pytest.raises(ValueError, match="is no conda spec"):
        parse_conda(line)


def test_the_bounds_are_those_of_pyproject():
    conda, pip = dict(map(parse_conda, CONDA_LINES)), dict(map(parse_pip, PIP_LINES))
    assert not set(conda) & set(pip)
    assert len(conda) == len(CONDA_LINES)
    assert conda["python"] == SpecifierSet(PROJECT["requires-python"])
    found = {name: bounds for name, bounds in (conda | pip).items() if name not in CONDA_ONLY}
    assert found == wanted()


@pytest.mark.parametrize(
    ("platform", "machine", "has_cupy"),
    [
        ("linux", "x86_64", True),
        ("linux", "aarch64", True),
        ("linux", "ppc64le", False),
        ("win32", "AMD64", True),
        ("darwin", "arm64", False),
    ],
)
def test_cupy_is_asked_for_only_where_it_exists(platform, machine, has_cupy):
    [cupy] = [Requirement(line) for line in PIP_LINES if line.startswith("cupy")]
    assert cupy.marker.evaluate({"sys_platform": platform, "platform_machine": machine}) is has_cupy


def test_only_conda_forge_is_used():
    assert ENVIRONMENT["channels"] == ["conda-forge", "nodefaults"]


def test_the_installed_packages_satisfy_the_bounds():
    """The pip equivalents that the suite runs with are inside the bounds, so the bounds are not mere hope."""
    from importlib.metadata import PackageNotFoundError, version

    checked = 0
    for name, bounds in wanted().items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        assert bounds.contains(installed, prereleases=True), f"{name} {installed} is not {bounds}"
        checked += 1
    assert checked >= 10
