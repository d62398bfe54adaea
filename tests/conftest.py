"""What the whole suite shares: reproducible hypothesis runs; no silent loss of the tests that need torch."""

import os

import pytest

try:
    from hypothesis import settings
except ImportError:  # without the extra `test`, the tests that do not use hypothesis still run
    pass
else:
    settings.register_profile("minitf", deadline=None)
    settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
    settings.load_profile("ci" if os.environ.get("CI") else "minitf")


def _require_torch():
    return os.environ.get("MINITF_REQUIRE_TORCH") == "1"


def _needs_torch(item):
    module = getattr(item, "module", None)
    return (
        "torch" in getattr(item, "fixturenames", ()) or hasattr(module, "torch") or hasattr(module, "oracle")
    )


def pytest_collection_modifyitems(items):
    for item in items:
        if _needs_torch(item):
            item.add_marker(pytest.mark.needs_torch)


def pytest_sessionfinish(session):
    """With MINITF_REQUIRE_TORCH=1, fail if a test was skipped for want of torch, or none of them ran."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not _require_torch() or reporter is None or session.config.option.collectonly:
        return
    reasons = (
        "torch",
        "unable to import module",
    )  # the second: a module of minitf whose doctests did not run
    skipped = [r for r in reporter.stats.get("skipped", []) if any(why in str(r.longrepr) for why in reasons)]
    compared = [report for report in reporter.stats.get("passed", []) if "needs_torch" in report.keywords]
    if skipped or not compared:
        reporter.write_line("")
        for report in skipped:
            reporter.write_line(f"skipped for want of torch: {report.nodeid or report.longrepr}", red=True)
        reporter.write_line(
            f"MINITF_REQUIRE_TORCH=1: {len(compared)} tests compared with torch, {len(skipped)} were skipped",
            red=True,
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
