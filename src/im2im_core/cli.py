"""The command line: ``im2im COMMAND …``; a command's module is imported when it is used."""

from __future__ import annotations

import argparse
import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from im2im_core import __version__
from im2im_core.errors import ConfigError, Im2ImError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from im2im_core.commands import Output

COMMANDS = {
    "presets": ("recipes", "list the ready tasks"),
    "show": ("recipes", "print a preset as YAML, every setting explained"),
    "check": ("check", "look for problems in a folder of images and targets"),
    "plan": ("recipes", "say what a training would do, with reasons"),
    "train": ("train", "train a model from a preset or a recipe"),
    "finetune": ("finetune", "teach a trained model on, with images of your own"),
    "resume": ("train", "go on with a paused, stopped or interrupted run"),
    "runs": ("runs", "list the runs of a project, or follow one"),
    "convert": ("convert", "turn a configuration of mmv_im2im into a recipe"),
    "models": ("models", "list the models that can be used here"),
    "pause": ("runs", "save a run exactly and give its memory back"),
    "stop": ("runs", "finish a run now and keep its best model"),
    "predict": ("predict", "apply a model to images"),
    "evaluate": ("evaluate", "score a model, or predictions, against the truth"),
    "export": ("runs", "write the model of a run as a bioimage.io package"),
    "doctor": ("doctor", "report the environment, or trust a package"),
}
"""Command -> module below `im2im_core.commands` and what it does."""

INTERRUPTED, TERMINATED, UNEXPECTED = 130, 143, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of a command: 0 ok, 2 config, 3 data, 4 resources, 5 refused, 130 Ctrl-C, 143 terminated."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name.startswith("-") or name not in COMMANDS:
        return _top_level(arguments)
    return _run(name, arguments[1:])


def _top_level(arguments: list[str]) -> int:
    """Answers everything that needs no command: help, version, a mistyped name."""
    rows = "\n".join(f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items())
    parser = _Parser(
        prog="im2im",
        usage="im2im COMMAND …",
        description="Train and run deep-learning image-to-image models on microscopy images.",
        epilog=f"commands:\n{rows}\n\n`im2im COMMAND --help` says more; `im2im train PRESET --help` lists every "
        "setting.\nEvery command takes --json.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=True,
    )
    parser.add_argument("--version", action="version", version=f"im2im {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    try:
        found, _ = parser.parse_known_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    if found.command is None:
        parser.print_help()
        return 0
    return _report(ConfigError(f"There is no command {found.command!r}", nearest(found.command, COMMANDS)))


def _run(name: str, arguments: list[str]) -> int:
    from im2im_core.commands import Output

    module = import_module(f"im2im_core.commands.{COMMANDS[name][0]}")
    command = module.COMMANDS[name]
    parser = _Parser(prog=f"im2im {name}", description=f"{command.description}", allow_abbrev=False)
    command.configure(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable result on stdout and nothing else")
    output = Output(json="--json" in arguments)
    logging.getLogger("im2im_core").addHandler(logging.NullHandler())
    try:
        return int(command.run(parser, arguments, output))
    except SystemExit as stop:  # argparse: help was shown
        return int(stop.code or 0)
    except Im2ImError as error:
        return _report(error, output)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        sys.stderr.close()
        return 0
    except Exception as error:  # the boundary of the job: the only place that takes everything
        return _unexpected(error, output)


def _report(error: Im2ImError, output: Output | None = None) -> int:
    """Exit code of `error`, which is shown as one line with its cure."""
    sys.stderr.write(f"im2im: {' '.join(str(error).split())}\n")
    if output is not None and output.json:
        output.line(
            {"error": type(error).__name__, "message": error.message, "cure": error.cure, "exit_code": error.exit_code}
        )
    return error.exit_code


def _unexpected(error: Exception, output: Output) -> int:
    """Exit code of an error that nobody foresaw: of the machine, or a fault of ours, which is kept for a report."""
    from im2im_core.commands import write_traceback
    from im2im_core.jobs.explain import error_of, explain

    failed = explain(error)
    if failed.exit_code != UNEXPECTED:
        return _report(error_of(failed), output)
    path = write_traceback(error)
    text = f"Unexpected {type(error).__name__}: {error}"
    return _report(Im2ImError(text, f"Please report it with {path}"), output)


class _Parser(argparse.ArgumentParser):
    """Parser that reports a wrong command line like every other error."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, f"See `{self.prog} --help`")


if __name__ == "__main__":
    sys.exit(main())
