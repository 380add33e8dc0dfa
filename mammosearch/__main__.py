"""`python -m mammosearch`: the same as the command `mammosearch`."""

from mammosearch.run import main

if __name__ == "__main__":
    main()
