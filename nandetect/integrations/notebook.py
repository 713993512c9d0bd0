"""`%load_ext nandetect` in a notebook: `%%nandetect` runs a cell with everything that it compiles watched, `%nandetect` one expression.

IPython is imported only in functions that it calls itself.
"""

from __future__ import annotations

import ast
import dataclasses
import sys
from contextlib import suppress
from types import CodeType
from typing import TYPE_CHECKING, Any

from nandetect import wording
from nandetect.errors import NonFiniteError, in_one_line
from nandetect.records import Frame, Report

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class StoppedCell(NonFiniteError):
    """What ends a cell at its first non-finite value. Its report is shown by itself: IPython writes one line of the error, no traceback."""

    def __str__(self) -> str:
        from nandetect.render import layout

        try:
            return layout.headline(self.report)
        except Exception as error:
            return in_one_line(self.report, error)

    def _render_traceback_(self) -> list[str]:
        return [f"stopped: {self}"]


def load_ipython_extension(ipython: Any) -> None:
    """What `%load_ext nandetect` calls."""
    from IPython.core.error import UsageError
    from IPython.core.magic import no_var_expand

    @no_var_expand
    def nandetect(line: str, cell: str | None = None) -> object:
        """Run a cell, or the rest of the line, and say where the first non-finite value came from.

        Watched are un-jitted code, what is jitted meanwhile, and jitted functions that the notebook has names for. Functions that only a
        module holds, and that were jitted before, are not. A cell that awaits is not understood.
        """
        if cell is None:
            return run(ipython, line)
        if line.strip():
            raise UsageError("%%nandetect takes nothing on its own line; for one expression there is %nandetect")
        # The magic's own line is the cell's first.
        return run(ipython, cell, lines_above=1)

    ipython.register_magic_function(nandetect, "line_cell", "nandetect")


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """What `%unload_ext nandetect` calls."""
    for magics in ipython.magics_manager.magics.values():
        magics.pop("nandetect", None)


def run(ipython: InteractiveShell, source: str, lines_above: int = 0) -> object:
    """Run source in the user's namespace, show what was found in it, and give the value of its last expression.

    Raises `StoppedCell` where something was found, at the call where that was possible. Functions that it jitted are bare again afterwards.
    """
    from nandetect.run import everywhere

    reports: list[Report] = []
    is_over = False

    def tell(report: Report) -> None:
        if not reports and not is_over:
            try:
                shown = _in_cells(report, ipython)
            # A cell is then named by the file that it pretends to be.
            except Exception:
                shown = report
            assert isinstance(shown, Report)
            reports.append(shown)
            raise StoppedCell(reports[0])

    statements, last = _compiled(ipython, source, lines_above)
    try:
        with everywhere.watching(tell, check_every=1) as watched, watched.inside(ipython.user_ns):
            try:
                exec(statements, ipython.user_ns)
                value = eval(last, ipython.user_ns) if last is not None else None
            finally:
                with suppress(StoppedCell):
                    watched.flush()
    finally:
        # Reports that come later are dropped: a function that outlives the cell may still be watched.
        is_over = True
        for report in reports:
            _display(report)
    if reports:
        raise StoppedCell(reports[0])
    cost = watched.functions.cost()
    operations = watched.eager.log.seen
    watched_this = f"{wording.counted(cost.calls, 'call')} and {wording.counted(operations, 'operation')} outside of them"
    left_out = ", ".join(watched.left_out())
    found = f"nothing found in {watched_this}, but not looked at: {left_out}" if left_out else f"nothing non-finite in {watched_this}"
    sys.stdout.write(f"nandetect: {found}\n")
    return value


def _compiled(ipython: Any, source: str, lines_above: int) -> tuple[CodeType, CodeType | None]:
    """The statements of a cell, compiled, and the expression at its end where there is one.

    `ipython` is an `InteractiveShell`, whose own annotations deny that it compiles syntax trees and that it keeps a history.
    """
    code = "\n" * lines_above + ipython.transform_cell(source)
    # Some versions of IPython count the cell before they run it, and some after.
    number = len(ipython.history_manager.input_hist_raw) - 1
    file = ipython.compile.cache(code, number, raw_code=source)
    body = ipython.transform_ast(ipython.compile.ast_parse(code, file)).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    statements = ipython.compile(ast.Module(body, []), file, "exec")
    return statements, last and ipython.compile(ast.Expression(last.value), file, "eval")


def _in_cells(value: object, ipython: InteractiveShell) -> object:
    """The same value with frames that name a cell as IPython does, and not by the file that the cell pretends to be."""
    if isinstance(value, tuple):
        return tuple(_in_cells(item, ipython) for item in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = {field.name: _in_cells(getattr(value, field.name), ipython) for field in dataclasses.fields(value)}
    if isinstance(value, Frame):
        fields["file"] = " ".join(ipython.compile.format_code_name(value.file) or (value.file,))
    return dataclasses.replace(value, **fields)


def _display(report: Report) -> None:
    from IPython.display import display

    try:
        shown = {"text/plain": str(report), "text/html": report._repr_html_()}
    except Exception as error:
        shown = {"text/plain": in_one_line(report, error)}
    display(shown, raw=True)
