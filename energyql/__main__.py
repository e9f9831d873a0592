"""Start of the command line as `python -m energyql`."""

from energyql.cli.main import main

if __name__ == "__main__":
    main()
