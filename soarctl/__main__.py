"""`python -m soarctl` is the `soarctl` command."""

from soarctl.cli.app import main

if __name__ == "__main__":
    main()
