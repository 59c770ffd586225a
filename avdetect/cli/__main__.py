"""python -m avdetect.cli"""

from avdetect.cli import main

if __name__ == "__main__":
    main()
