"""Starts the command `cnn10bert`.

It stands beside the package, which thus is told that it need not import transformers' models: see its `__init__.py`.
"""


def main() -> None:
    """The console script."""
    from modeling_cnn10bert.cli import main

    main()
