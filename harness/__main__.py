"""Entry point of the command `harness`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from harness.cli.main import run

    run()


if __name__ == "__main__":
    main()
