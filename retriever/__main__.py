"""Run the command line with `python -m retriever`."""

from retriever.cli.main import cli

if __name__ == "__main__":
    cli(prog_name="retriever")
