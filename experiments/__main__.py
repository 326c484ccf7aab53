"""List the experiments, each with what it shows: `python -m experiments`."""

import ast
from pathlib import Path


def shown() -> list[tuple[str, str]]:
    """Name and first line of every experiment, read without running it."""
    here = Path(__file__).parent
    files = [path for path in here.glob("*.py") if not path.name.startswith("_")]
    files += here.glob("*/__main__.py")
    found = []
    for path in files:
        words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        name = path.parent.name if path.name == "__main__.py" else path.stem
        found.append((name, words.split("\n\n")[0].replace("\n", " ")))
    return sorted(found)


if __name__ == "__main__":
    listed = shown()
    wide = max(len(name) for name, _ in listed)
    print("python -m experiments.NAME, with --help for its options:\n")
    for name, words in listed:
        print(f"  {name:<{wide}}  {words}")
