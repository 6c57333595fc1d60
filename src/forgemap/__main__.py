"""`python -m forgemap` is `forgemap`."""

from .cli import main

if __name__ == "__main__":
    main()
