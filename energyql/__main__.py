"""`python -m energyql`, the command line."""

from energyql.cli.main import main

if __name__ == "__main__":
    main()
