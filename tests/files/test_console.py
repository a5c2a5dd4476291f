"""How commands end, whatever ends them."""

import pytest

from seedsbench.files.console import INTERRUPTED, PIPE_CLOSED, exit_code
from tests.support.cells import python
from tests.support.machine import ROOT


def ending(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BrokenPipeError(), PIPE_CLOSED, ""),
        (KeyboardInterrupt(), INTERRUPTED, "c: interrupted\n"),
        (OSError(28, "No space left"), 1, "c: OSError: [Errno 28] No space left (test_console.py:12)\n"),
        (GeneratorExit("x\ny"), 1, "c: GeneratorExit: x y (test_console.py:12)\n"),
        (
            KeyError("x"),
            1,
            "c: KeyError: 'x' (test_console.py:12) (an error of ours, at test_console.py:12)\n",
        ),
    ],
)
def test_whatever_ends_a_command_is_one_line_and_an_exit_code(capsys, error, code, said):
    assert exit_code("c", ending(error)) == code
    assert capsys.readouterr() == ("", said)


def test_an_exit_keeps_its_code():
    with pytest.raises(SystemExit, match="3"):
        exit_code("c", ending(SystemExit(3)))


def test_ctrl_c_is_told_even_where_clean_up_failed_after_it(capsys):
    def run():
        try:
            try:
                raise KeyboardInterrupt
            finally:
                {}["the state it left"]
        except KeyError as error:
            raise ValueError("cannot compose") from error

    assert exit_code("c", run) == INTERRUPTED
    assert capsys.readouterr().err == "c: interrupted\n"


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_while_python_ends_changes_nothing(number):
    code = f"import atexit, os, signal; atexit.register(lambda: os.kill(os.getpid(), signal.{number}))\n"
    code += "from seedsbench.files.console import exit_code; raise SystemExit(exit_code('c', lambda: 0))"
    assert python("-c", code, folder=ROOT) == ""
