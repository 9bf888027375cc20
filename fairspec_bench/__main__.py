"""`python -m fairspec_bench` is `fairspec`."""

from fairspec_bench.cli.main import main

if __name__ == "__main__":
    main()
