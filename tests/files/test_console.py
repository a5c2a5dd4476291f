"""How commands end, whatever ends them."""

import pytest

from seedsbench.files.console import INTERRUPTED, PIPE_CLOSED, exit_code


def ending(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BrokenPipeError(), PIPE_CLOSED, ""),
        (KeyboardInterrupt(), INTERRUPTED, "c: interrupted\n"),
        (OSError(28, "No space left"), 1, "c: OSError: [Errno 28] No space left (test_console.py:10)\n"),
        (GeneratorExit("x\ny"), 1, "c: GeneratorExit: x y (test_console.py:10)\n"),
        (
            KeyError("x"),
            1,
            "c: KeyError: 'x' (test_console.py:10) (an error of ours, at test_console.py:10)\n",
        ),
    ],
)
def test_whatever_ends_a_command_is_one_line_and_an_exit_code(capsys, error, code, said):
    assert exit_code("c", ending(error)) == code
    assert capsys.readouterr() == ("", said)


def test_an_exit_keeps_its_code():
    with pytest.raises(SystemExit, match="3"):
        exit_code("c", ending(SystemExit(3)))
