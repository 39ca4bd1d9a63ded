"""`python -m ckptdiff`."""

from ckptdiff.cli.main import main

if __name__ == "__main__":
    main()
