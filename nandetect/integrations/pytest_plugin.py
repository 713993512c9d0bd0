"""`pytest --nandetect`: a test whose compiled or un-jitted code makes a non-finite value fails, with the report of where it was born.

JAX is imported where a test imports it, and watched from then on; a run whose tests never touch JAX stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import ParamSpec, TypeVar

import pytest

from nandetect import ownership
from nandetect.annotations import Pytree
from nandetect.errors import text
from nandetect.integrations.pytest_watch import NonFiniteResult, Watching, cut, first, headline, locals_kept
from nandetect.records import Report

OPTION = """fail each test in which a compiled call returns a non-finite value, or un-jitted code makes a NaN that is still held when the
test returns. Watched is what is jitted after this plugin saw JAX imported: of what a plugin that was loaded earlier had jitted, nothing."""
MARKER = """nandetect(on=True): whether `pytest --nandetect` watches this test; `@pytest.mark.nandetect(False)` is for one that wants NaN.
Without --nandetect, `@pytest.mark.nandetect` watches this one test: its un-jitted code, what it jits, and the jitted functions that its
module has a name for."""
Given = ParamSpec("Given")
Returned = TypeVar("Returned")
# Where the watch of a whole run is kept, and where the one that a test stands under is, with the reports of it.
_WATCHING, _TEST = pytest.StashKey[Watching](), pytest.StashKey[tuple[Watching, list[Report]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--nandetect`."""
    parser.getgroup("nandetect").addoption("--nandetect", action="store_true", help=" ".join(OPTION.split()))


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Watch before the first conftest is imported: what that jits is watched too."""
    if early_config.known_args_namespace.nandetect:
        _begin(early_config)


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker; and open the watch, where this plugin was loaded too late to open it before the conftests."""
    config.addinivalue_line("markers", " ".join(MARKER.split()))
    ownership.work_in(str(config.rootpath))
    if config.getoption("nandetect") and _WATCHING not in config.stash:
        _begin(config)


def _begin(config: pytest.Config) -> None:
    watching = config.stash[_WATCHING] = Watching()
    watching.open()
    config.add_cleanup(watching.close)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raises `UsageError` for a mark that means nothing, before any test runs."""
    for item in items:
        _mark(item)


def _mark(item: pytest.Item) -> bool | None:
    marker = item.get_closest_marker("nandetect")
    if marker is None:
        return None
    if marker.kwargs or marker.args not in ((), (True,), (False,)):
        raise pytest.UsageError(f"{item.nodeid}: the mark is `nandetect` or `nandetect(False)`, and nothing else is said in it")
    return marker.args != (False,)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch the test with its fixtures."""
    mark, watching = _mark(item), item.config.stash.get(_WATCHING, None)
    if mark is False:
        with watching.paused() if watching else nullcontext():
            return (yield)
    if watching is not None:
        with _test(item, watching):
            return (yield)
    if mark is None:
        return (yield)
    watching = Watching()
    watching.open()
    try:
        with _test(item, watching, vars(item.module) if isinstance(item, pytest.Function) else {}):
            return (yield)
    finally:
        watching.close()


@contextmanager
def _test(item: pytest.Item, watching: Watching, namespace: dict[str, object] | None = None) -> Generator[None]:
    with watching.test(namespace or {}) as reports:
        item.stash[_TEST] = watching, reports
        yield


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Judge what the test made, at its end; one that swallowed what stopped it fails all the same."""
    if _TEST not in item.stash:
        return (yield)
    watching, reports = item.stash[_TEST]
    with locals_kept(getattr(item, "obj", None)):
        try:
            result = yield
        finally:
            watching.judge()
    if reports:
        pytest.fail(headline(first(reports)), pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what was found beside the failure, whatever it failed of."""
    if call.excinfo is not None and isinstance(call.excinfo.value, NonFiniteResult):
        cut(call.excinfo.value)
    report = yield
    _, reports = item.stash.get(_TEST, (None, []))
    if reports and report.failed and call.when != "teardown":
        report.sections.append(("nandetect report", text(first(reports))))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line for the whole run."""
    watching = config.stash.get(_WATCHING, None)
    if watching is not None:
        terminalreporter.write_line(f"nandetect: {watching.summary()}")


@pytest.fixture
def assert_finite(request: pytest.FixtureRequest) -> Callable[..., Pytree]:
    """`assert_finite(tree)` or `assert_finite(fn, *args)`: what it is given, or what the function returns, is finite. Returns it."""
    from nandetect.integrations import assertions

    return _silently(assertions.assert_finite, request)


@pytest.fixture
def assert_finite_grads(request: pytest.FixtureRequest) -> Callable[..., Pytree]:
    """`assert_finite_grads(fn, *args)`: the gradient of a scalar function is finite in every floating argument. Returns it."""
    from nandetect.integrations import assertions

    return _silently(assertions.assert_finite_grads, request)


def _silently(check: Callable[Given, Returned], request: pytest.FixtureRequest) -> Callable[Given, Returned]:
    """An assertion, which tells by itself what it finds: the watch tells nothing of it."""
    watching, _ = request.node.stash.get(_TEST, (None, []))

    def checked(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        __tracebackhide__ = True
        with watching.silent() if watching else nullcontext():
            return check(*args, **kwargs)

    return checked
