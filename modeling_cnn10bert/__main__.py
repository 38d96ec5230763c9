"""Run the command `cnn10bert` as `python -m modeling_cnn10bert`, also for `accelerate launch --module`."""

from .cli.app import main

if __name__ == "__main__":
    main()
