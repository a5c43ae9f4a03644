"""`python -m api.cli`: as each process is started."""

from api.cli import main

if __name__ == "__main__":
    main()
