"""How a script ends: with its exit code, or with one line and 2 where its user, or a disk, is at fault."""

import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import NoReturn

from train.errors import RunEnded, UserError, print_error


def exit_with(main: Callable[[], int]) -> NoReturn:
    try:
        code = main()
    except RunEnded as ended:
        code = print_error(ended)
    except BrokenProcessPool:
        why = "a worker process was ended by the system, perhaps for want of memory: give fewer by --workers"
        code = print_error(UserError(why))
    except OSError as error:
        code = print_error(UserError(f"{error.filename or error.__class__.__name__}: {error.strerror or error}"))
    sys.exit(code)
