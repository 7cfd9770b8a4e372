"""A step's process: a command that does not outlive the pipeline it belongs to."""

import runpy
import sys

from converters.parallel import end_with_parent


def main(words: list[str]) -> None:
    """Do a step: a `zoo` command, or the pipeline's own choice between answers."""
    if words[:1] == ["@choose"]:
        from zoo.pipeline.choice import choose

        try:
            choose(words[1:])
        except (OSError, ValueError) as error:
            print(f"zoo: {error}", file=sys.stderr)
            sys.exit(2)
        return
    # The same as `python -m zoo`, in this process.
    runpy.run_module("zoo", run_name="__main__")


if __name__ == "__main__":
    end_with_parent()
    main(sys.argv[1:])
