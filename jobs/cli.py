"""The `unifactory` command: one file a verb. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from catalog.errors import UserError
from jobs.verbs.audit import audit
from jobs.verbs.curate import curate
from jobs.verbs.demo import demo
from jobs.verbs.explain import explain
from jobs.verbs.gc import gc
from jobs.verbs.inspect import inspect
from jobs.verbs.plan import plan
from jobs.verbs.report import report
from jobs.verbs.retry import retry
from jobs.verbs.status import status

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "A dataset factory for unified multimodal models.\n\n"
        "Example: unifactory curate generation --root corpora --store runs/store"
    ),
)
for verb in (plan, curate, status, retry, audit, report, explain, gc, inspect, demo):
    app.command()(verb)


def main() -> None:
    """Run the command; user mistakes are one line on stderr and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _end(str(error))
    except (typer.Abort, KeyboardInterrupt):
        _end("interrupted; run the same command again to go on", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        from jobs.errors import condition_of

        # Typer keeps the base class of its usage errors to itself; all of them can format their message.
        usage = getattr(error, "format_message", None)
        line = usage() if usage is not None else condition_of(error)
        if line is None:
            # A fault of the program. Exit code 1 is taken: the audit says findings by it.
            traceback.print_exc()
            sys.exit(2)
        _end(line)
    else:
        sys.exit(code or 0)


def _end(message: str, code: int = 2) -> None:
    one_line = " ".join(message.split())
    print(f"unifactory: {one_line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
