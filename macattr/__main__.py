"""``python -m macattr`` is the command ``macattr``: so that torchrun can start it."""

from macattr.cli import main

if __name__ == "__main__":
    main()
